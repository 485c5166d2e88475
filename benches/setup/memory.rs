//! The most memory that a process takes for a large transaction, or to read what it made: ours, and `nft`.
//!
//! Each in a process of its own, started while this one is still small: the kernel counts what the parent had in memory for the child, too.

use std::fs;
use std::mem::MaybeUninit;
use std::process::{Command, Stdio};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::nftables::Socket;

use super::Outcome;
use super::ordinary::installed;
use super::transactions::Kind;

/// The argument by which this program does one thing and ends: `ACTION KIND COUNT FILE`.
pub const ALONE: &str = "--alone";

pub fn run(sizes: &[(Kind, usize)]) -> Outcome<()> {
    println!("most memory of the process (xN: so many times ours)");
    println!("{:<36} {:<20} {:<20}", "", "ringfence", "nft");
    for (kind, count) in sizes {
        let what = format!("{count} {}", kind.name());
        let file = std::env::temp_dir().join(format!("ringfence-bench-{}", std::process::id()));
        let file = file.to_str().ok_or("the folder for temporary files has no name")?;
        let ourselves = std::env::current_exe()?;
        let ourselves = |action: &str| {
            let mut command = Command::new(&ourselves);
            command.args([ALONE, action, kind.name(), &count.to_string(), file]);
            command
        };
        let nothing = peak(&mut ourselves("nothing"))?;
        peak(&mut ourselves("write"))?;
        let nft = |arguments: &[&str]| {
            let mut command = Command::new("nft");
            command.args(arguments).stdout(Stdio::null());
            command
        };
        let (mine, other) = (Netns::new()?, Netns::new()?);
        let ours = mine.run(|| peak(&mut ourselves("commit")))??;
        let theirs = if installed("nft") { Some(other.run(|| peak(&mut nft(&["-f", file])))??) } else { None };
        fs::remove_file(file)?;
        row(&format!("{what}, committed"), ours, theirs);
        if matches!(kind, Kind::Rules) {
            let ours = mine.run(|| peak(&mut ourselves("read")))??;
            let theirs =
                if installed("nft") { Some(mine.run(|| peak(&mut nft(&["-j", "list", "ruleset"])))??) } else { None };
            row(&format!("{what}, read"), ours, theirs);
        }
        row("  of which there is before the first", nothing, None);
    }
    println!();
    Ok(())
}

fn row(what: &str, ours: u64, theirs: Option<u64>) {
    let size = |kibibytes: u64| format!("{:.1} MB", kibibytes as f64 * 1024.0 / 1e6);
    let theirs =
        theirs.map(|theirs| format!("{} x{:.1}", size(theirs), theirs as f64 / ours as f64)).unwrap_or_default();
    println!("{what:<36} {:<20} {theirs:<20}", size(ours));
}

/// What the process that was started for it does.
pub fn alone(arguments: &[String]) -> Outcome<()> {
    let [action, kind, count, file] = arguments else { return Err("ACTION KIND COUNT FILE".into()) };
    let kind = Kind::named(kind).ok_or("rules or elements")?;
    let count: usize = count.parse()?;
    match action.as_str() {
        "write" => fs::write(file, kind.make(count)?.syntax().as_str())?,
        "commit" => {
            Socket::open()?.commit(&kind.make(count)?.into_transaction())?;
        }
        "read" => {
            let found = Socket::open()?.ruleset()?;
            if found.rules.len() != count {
                return Err(format!("{} rules were read", found.rules.len()).into());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Runs a command and gives the most memory that it had, in kibibytes.
fn peak(command: &mut Command) -> Outcome<u64> {
    let child = command.spawn()?;
    let (mut status, mut used) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both places outlive the call. Nobody else waits for this child: `Child` has no destructor that would.
    let pid = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, used.as_mut_ptr()) };
    if pid < 0 || status != 0 {
        return Err(format!("{command:?} failed (status {status})").into());
    }
    // SAFETY: all zeros are a value, and the kernel has written one.
    Ok(unsafe { used.assume_init() }.ru_maxrss as u64)
}
