//! What it costs a connection that somebody looks who makes it. Prints a table; `docs/benchmarks.md` has one.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use ringfence::audit::Identify;
use ringfence::kernel::child::{Child, ChildSpec};
use ringfence::kernel::identity::{Logged, Marks, Nobody, Program};
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;

use crate::cell::{ALLOWED, Cell, attempt, program};
use crate::marked::Late;

/// Way of `attempt.c`, how often, which port, and what that is.
const ATTEMPTS: [(&str, &str, u16, &str); 4] = [
    ("connects", "300", 9, "TCP, refused"),
    ("connects", "300", ALLOWED, "TCP, allowed"),
    ("sends", "2000", 9, "UDP, refused"),
    ("sends", "2000", ALLOWED, "UDP, allowed"),
];

const ROUNDS: usize = 5;

#[derive(Debug, Clone, Copy)]
enum By {
    Nobody,
    Bpf,
    Marks,
}

/// Nanoseconds that one attempt takes.
fn measure(cell: &Cell, by: By, program: &Program, (way, count, port, _): (&str, &str, u16, &str)) -> u64 {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut spec = ChildSpec::new(attempt().unwrap());
    spec.args = [way, count, &port.to_string()].map(OsString::from).to_vec();
    spec.pid_namespace = false;
    spec.notify = matches!(by, By::Marks);
    spec.stdio[1] = Some(OwnedFd::from(writer));
    let marks = Late::default();
    let identify: Box<dyn Identify> = match by {
        By::Nobody => Box::new(Nobody { reason: "to compare".into() }),
        By::Bpf => Box::new(program.attach(&cell.netns, Logged::Refused).unwrap()),
        By::Marks => Box::new(Late(Arc::clone(&marks.0))),
    };
    let (status, _) = cell.listen(identify, || {
        let mut child = Child::spawn(cell.netns.as_fd(), spec).unwrap();
        if let Some(listener) = child.listener() {
            assert!(marks.0.set(Mutex::new(Marks::listen(listener).unwrap())).is_ok());
        }
        child.wait_blocking().unwrap()
    });
    assert!(status.success(), "{status}");
    let mut text = String::new();
    File::from(OwnedFd::from(reader)).read_to_string(&mut text).unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn what_an_attempt_costs() {
    let (Some(cell), Some(program), Some(_)) = (Cell::new(), program(), attempt()) else { return };
    let server = "203.0.113.9/32".parse().unwrap();
    cell.host
        .run(|| Socket::open().unwrap().commit(Batch::from([Request::add_address(IfIndex(1), server)])))
        .unwrap()
        .unwrap();
    let listener = cell.host.run(|| TcpListener::bind(("203.0.113.9", ALLOWED))).unwrap().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    println!("{:14} {:>10} {:>10} {:>10}", "ns, median", "nobody", "BPF", "marks");
    for attempt in ATTEMPTS {
        let mut least = [u64::MAX; 3];
        for _ in 0..ROUNDS {
            for (at, by) in [By::Nobody, By::Bpf, By::Marks].into_iter().enumerate() {
                least[at] = least[at].min(measure(&cell, by, program, attempt));
            }
        }
        println!("{:14} {:>10} {:>10} {:>10}", attempt.3, least[0], least[1], least[2]);
    }
}

#[test]
fn what_loading_costs() {
    let (Some(cell), Some(first)) = (Cell::new(), program()) else { return };
    let start = std::time::Instant::now();
    let program = Program::load().unwrap();
    println!("load: {:?}", start.elapsed());
    let mut took = Vec::new();
    for program in std::iter::repeat_n(first, 20).chain(std::iter::repeat_n(&program, 20)) {
        let start = std::time::Instant::now();
        let watch = program.attach(&cell.netns, Logged::Refused).unwrap();
        took.push(start.elapsed());
        drop(watch);
    }
    took.sort_unstable();
    println!("attach: median {:?}, least {:?}", took[20], took[0]);
}

#[test]
fn a_flow_that_is_let_out_is_hardly_recorded() {
    let (Some(cell), Some(program), Some(attempt)) = (Cell::new(), program(), attempt()) else { return };
    let watch = program.attach(&cell.netns, Logged::Refused).unwrap();
    let port = ALLOWED.to_string();
    let (_, output) = cell.run(std::process::Command::new(attempt).args(["sends", "2000", &port]));
    assert!(output.status.success());
    let recorded = watch.recorded();
    println!("2000 datagrams of one flow: {recorded} records");
    // One a second, and it took no minute.
    assert!((1..60).contains(&recorded), "{recorded}");
}
