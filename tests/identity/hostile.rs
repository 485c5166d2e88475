//! Processes that would rather have another one blamed, or nobody.

use std::process::Command;
use std::time::Instant;

use ringfence::audit::Identity;

use crate::cell::{Cell, Score, Told, attempt, judge, program, truth};

/// Lets `attempt.c` try in a hostile way, and judges.
fn judged(way: &str, arguments: &[&str]) -> Option<(Score, Vec<Told>)> {
    let (cell, program, attempt) = (Cell::new()?, program()?, attempt()?);
    let address = cell.address.to_string();
    let arguments = arguments.iter().map(|word| if *word == "ADDRESS" { &address } else { *word });
    let ((_, output), told) = cell.watch(program, || cell.run(Command::new(attempt).arg(way).args(arguments)));
    assert!(output.status.success(), "{way}: {}", String::from_utf8_lossy(&output.stderr));
    let score = judge(&told, &truth(&output));
    println!("{way:16} {score:?}");
    assert_eq!(score.wrong, 0, "{way}");
    Some((score, told))
}

#[test]
fn nobody_is_framed_by_a_raw_socket() {
    let Some((score, told)) = judged("framed", &["ADDRESS"]) else { return };
    assert_eq!(told.len(), 400);
    assert_eq!(score.right + score.ambiguous, 400, "{score:?}");
}

#[test]
fn two_that_share_a_socket_and_send_the_same_are_both_named_or_told_apart() {
    let Some((score, told)) = judged("both-share", &[]) else { return };
    assert_eq!(told.len(), 1000);
    // Two that send as fast as they can may overwrite records. Then nobody is told for certain.
    assert!(score.unknown < 1000, "{score:?}");
}

#[test]
fn a_crowd_that_sends_the_same_is_not_named_one_by_one() {
    let (Some(cell), Some(program), Some(attempt)) = (Cell::new(), program(), attempt()) else { return };
    let ((_, output), told) = cell.watch(program, || cell.run(Command::new(attempt).arg("crowd")));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.is_empty());
    let named = told.iter().map(|one| match &one.identity {
        Identity::Ambiguous { candidates } => candidates.len(),
        _ => 0,
    });
    assert!(named.max() <= Some(16), "events grow with the number of processes that a program starts");
}

#[test]
fn a_port_that_changes_hands_names_its_holder() {
    let Some((score, _)) = judged("shared-port", &[]) else { return };
    assert_eq!(score.right, 50);
}

#[test]
fn a_flood_hides_nobody_for_good_and_blames_nobody_else() {
    let Some((score, told)) = judged("flood", &["20000"]) else { return };
    // TCP is told for certain whatever was lost: nobody here has a raw socket.
    let tcp: Vec<&Told> = told.iter().filter(|one| one.attempted.protocol == 6).collect();
    let known = tcp.iter().filter(|one| matches!(one.identity, Identity::Exact(_))).count();
    println!("{known} of {} connections beside a flood of {} datagrams", tcp.len(), told.len() - tcp.len());
    assert!(score.unknown < told.len(), "{score:?}");
}

#[test]
fn who_is_told_is_told_soon() {
    let (Some(cell), Some(program), Some(attempt)) = (Cell::new(), program(), attempt()) else { return };
    let ((_, output), told) = cell.watch(program, || cell.run(Command::new(attempt).arg("parallel")));
    assert!(output.status.success());
    let mut took: Vec<_> = told.iter().map(|one| one.took).collect();
    took.sort_unstable();
    println!(
        "identify: median {:?}, 99th percentile {:?}, most {:?}",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took.last()
    );
}

#[test]
fn two_hundred_namespaces_each_have_their_own() {
    let (Some(program), Some(attempt)) = (program(), attempt()) else { return };
    let mut cells = Vec::new();
    for _ in 0..200 {
        let Some(cell) = Cell::new() else { return };
        cells.push(cell);
    }
    let start = Instant::now();
    let cells: Vec<_> = cells
        .into_iter()
        .map(|cell| {
            let watch = program.attach(&cell.netns, ringfence::kernel::identity::Logged::Refused).unwrap();
            (cell, watch)
        })
        .collect();
    println!("200 namespaces attached in {:?}", start.elapsed());
    // Each has its own program at work, all at once as far as two threads can.
    let (left, right): (Vec<_>, Vec<_>) = cells.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
    std::thread::scope(|scope| {
        for half in [left, right] {
            scope.spawn(move || {
                for (_, (cell, watch)) in half {
                    let ((pid, output), told) = cell.listen(watch, || cell.run(Command::new(attempt).arg("tcp")));
                    let score = judge(&told, &truth(&output));
                    assert_eq!(score, Score { right: 1, ..Score::default() }, "of {pid}: {told:?}");
                }
            });
        }
    });
}
