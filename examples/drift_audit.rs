//! An audit of drift: compares the ruleset that there is with one that was saved, and says what must be done so that it becomes that again.
//!
//! Reads what `ringfence rules save` printed. With `--mend` it is done; with `--watch` every later change is shown as it is committed, and by whom.
//!
//! ```console
//! # ringfence rules save > wanted.json
//! # cargo run --no-default-features --example drift_audit wanted.json
//! ```
//!
//! Exit status 0 when nothing differs (any more), 1 when something does.

use std::error::Error;
use std::process::ExitCode;

use ringfence::kernel::nftables::{Change, Monitor, Socket, dry_run};
use ringfence::nft::{Ruleset, diff};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let before = arguments.len();
        arguments.retain(|argument| argument != name);
        arguments.len() < before
    };
    let (mend, watch) = (flag("--mend"), flag("--watch"));
    let [file] = arguments.as_slice() else { return Err("usage: drift_audit FILE [--mend] [--watch]".into()) };
    let wanted = Ruleset::from_json(&std::fs::read_to_string(file)?)?;

    // Before the first look, so that nothing falls in between.
    let mut monitor = Monitor::open()?;
    let mut socket = Socket::open()?;
    let seen = socket.generation()?;
    let have = socket.ruleset()?;
    let mut steps = diff(&have, &wanted);
    for step in steps.operations() {
        println!("{step}");
    }
    if !steps.operations().is_empty() && mend {
        // The kernel says whether it would take them, where it does no harm.
        dry_run(&have, &steps)?;
        // And takes them only if nobody has changed anything since before the look.
        steps.bind(seen);
        socket.commit(&steps)?;
        println!("mended");
    }
    if watch {
        follow(&mut monitor)?;
    }
    let differs = !diff(&socket.ruleset()?, &wanted).operations().is_empty();
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows changes until it is stopped.
fn follow(monitor: &mut Monitor) -> ringfence::Result<()> {
    loop {
        match monitor.next(None)? {
            Some(Change::Committed { generation, by, edits, .. }) => {
                let by = by.map_or_else(String::new, |by| format!(" by {} ({})", by.name.escape_debug(), by.pid));
                println!("generation {}{by}:", generation.0);
                edits.iter().for_each(|edit| println!("  {edit}"));
            }
            Some(_) => println!("some changes were lost: compare again"),
            None => {}
        }
    }
}
