//! Who may give orders, and what others can do to those who may.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Inside, no_policy, policy};
use crate::support::python;
use crate::world::World;

fn address(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(format!("ringfence/{name}")).unwrap()
}

fn connect(world: &World, name: &str) -> UnixStream {
    world.outer.host.run(|| UnixStream::connect_addr(&address(name))).unwrap().unwrap()
}

fn answer(mut stream: UnixStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    said
}

#[test]
fn the_sandbox_itself_gives_no_orders() {
    let Some(world) = World::new() else { return };
    for flags in ["", "--share-pid", "--keep-caps NET_ADMIN,NET_RAW,SYS_ADMIN"] {
        let Some(mut inside) = Inside::start(&world, &format!("--name inside --user 0:0 {flags}")) else { return };
        // As root, with the file system of the host.
        assert_eq!(inside.ask("abstract ringfence/inside"), "ECONNREFUSED", "{flags}");
        // There is such a socket, on the host.
        drop(connect(&world, "inside"));
        assert_eq!(inside.end(), "");
    }
    let output = world.run(&format!("run --name inside --user 0:0 -- {} policy show inside", crate::world::RINGFENCE));
    assert_eq!(output.status.code(), Some(125));
    assert!(crate::world::text(&output.stderr).contains("there is no sandbox `inside` that takes orders"));
}

#[test]
fn another_user_gives_none() {
    let (Some(world), Some(python)) = (World::new(), python()) else { return };
    let Some(inside) = Inside::start(&world, "--name mine") else { return };
    // It may be answered before it has said anything.
    let script = "import os, socket; os.setgid(4242); os.setuid(4242); s = socket.socket(socket.AF_UNIX); s.connect('\\0ringfence/mine'); \
                  print(s.recv(4096).decode())";
    let mut command: Command = world.program(python);
    command.args(["-I", "-c", script]);
    let said = crate::world::text(&world.output(command).stdout);
    assert!(said.contains("the sandbox belongs to user 0, and user 4242 asks"), "{said}");
    assert_eq!(inside.end(), "");
    // And nobody is deceived by one who answers to the name.
    let script = "import os, socket, sys; os.setgid(4242); os.setuid(4242); s = socket.socket(socket.AF_UNIX); s.bind('\\0ringfence/mine'); s.listen(); \
                  print('up', flush=True); c = s.accept()[0]; sys.exit(1 if c.recv(1) else 0)";
    let mut command = world.program(python);
    command.args(["-I", "-c", script]);
    let mut squatter = world.spawn(command);
    squatter.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let said = no_policy(&world, "allow mine --direct 203.0.113.9:7");
    assert!(said.contains("user 4242 answers to the name of the sandbox `mine`"), "{said}");
    assert!(squatter.wait().unwrap().success(), "it was told something");
}

#[test]
fn a_name_is_taken_once_and_free_again_after_a_kill() {
    let Some(world) = World::new() else { return };
    let taken = world.outer.host.run(|| UnixListener::bind_addr(&address("taken"))).unwrap().unwrap();
    let output = world.run("run --name taken -- true");
    assert!(crate::world::text(&output.stderr).contains("can't listen for orders as `@ringfence/taken`"));
    drop(taken);
    let before = world.state();
    for _ in 0..3 {
        let Some(mut inside) = Inside::start(&world, "--name taken") else { return };
        policy(&world, "show taken");
        inside.child.kill().unwrap();
        inside.child.wait().unwrap();
        world.nothing_left(&before, "by a supervisor that was killed");
    }
}

#[test]
fn bad_clients_hurt_nobody() {
    let Some(world) = World::new() else { return };
    let Some(mut inside) = Inside::start(&world, "--name tough") else { return };
    for (line, error) in [
        (&b"\n"[..], "can't be read"),
        (b"nonsense\n", "can't be read"),
        (b"\xff\xfe\x00\n", "can't be read"),
        (b"{\"ringfence\":1}\n", "can't be read"),
        (b"{\"ringfence\":1,\"order\":\"rule\"}\n", "can't be read"),
        (b"{\"ringfence\":2,\"order\":\"show\"}\n", "this is version 1 of the protocol, and version 2 was spoken"),
        (b"{\"ringfence\":1,\"order\":\"set\",\"policy\":\"nonsense = 1\"}\n", "is not a key of a policy file"),
        (b"{\"ringfence\":1,\"order\":\"show\",\"more\":1}\n", "can't be read"),
    ] {
        let mut stream = connect(&world, "tough");
        stream.write_all(line).unwrap();
        let said = answer(stream);
        assert!(said.contains(error), "{said}");
    }
    // As much as it likes to say.
    let mut stream = connect(&world, "tough");
    let chunk = vec![b'x'; 1 << 16];
    for _ in 0..128 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let said = answer(stream);
    assert!(said.is_empty() || said.contains("bytes at most"), "{said}");
    // Who says nothing holds the others up for a while, and not for good.
    let silent: Vec<UnixStream> = (0..8).map(|_| connect(&world, "tough")).collect();
    let start = Instant::now();
    policy(&world, "show tough");
    println!("eight silent clients held up a ninth for {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(20));
    drop(silent);
    assert_eq!(inside.ask("sleep 0"), "slept");
    assert_eq!(inside.end(), "");
}
