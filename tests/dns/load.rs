//! Much at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence::dns::Limits;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use crate::network::{A, Host, Server, Serving, alone, question};

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One question from a port of its own; the code of the answer.
async fn one(number: u32) -> Option<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect("127.0.0.1:53").await.unwrap();
    socket.send(&question(number as u16, &format!("n{number}.example"), A, None)).await.unwrap();
    let mut buffer = [0; 512];
    let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.ok()?.unwrap();
    assert_eq!(buffer[..2], (number as u16).to_be_bytes());
    assert!(length >= 12);
    Some(buffer[3] & 15)
}

#[test]
fn a_thousand_questions_a_second_with_a_hundred_in_flight() {
    alone(|| async {
        let _server = Server::start("127.0.0.53", |asked| vec![asked.addresses(60, &[[203, 0, 113, 9]])]).await;
        let host = Host::new("nameserver 127.0.0.53\n", "");
        let serving = Serving::start(&host, Limits::default());
        let room = Arc::new(tokio::sync::Semaphore::new(100));
        let answered = Arc::new(std::sync::Mutex::new([0usize; 3]));
        let before = resident();
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..5000 {
            let due = Duration::from_millis(number.into());
            sleep(due.saturating_sub(start.elapsed())).await;
            let permit = room.clone().acquire_owned().await.unwrap();
            let answered = answered.clone();
            tasks.spawn(async move {
                let place = match one(number).await {
                    Some(0) => 0,
                    Some(2) => 1,
                    _ => 2,
                };
                answered.lock().unwrap()[place] += 1;
                drop(permit);
            });
        }
        while tasks.join_next().await.is_some() {}
        let [good, refused, lost] = *answered.lock().unwrap();
        eprintln!("5000 questions in {:?}: {good} answered, {refused} refused, {lost} lost", start.elapsed());
        assert_eq!((good + refused, lost), (5000, 0));
        assert!(good > 4900, "{good}");
        let after = resident();
        eprintln!("memory: {before} KiB before, {after} KiB after");
        assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB after");
        drop(serving);
    });
}

#[test]
fn a_flood_while_no_server_answers_is_told_so_and_forgotten() {
    alone(|| async {
        let _server = Server::start("127.0.0.53", |_| Vec::new()).await;
        let host = Host::new("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n", "");
        let _serving = Serving::start(&host, Limits { questions: 64, ..Limits::default() });
        let mut tasks = tokio::task::JoinSet::new();
        // As many as a socket's buffer holds, whoever reads it.
        for number in 0..200 {
            tasks.spawn(one(number));
        }
        let mut refused = 0;
        while let Some(answer) = tasks.join_next().await {
            assert_eq!(answer.unwrap(), Some(2), "refused, and clearly");
            refused += 1;
        }
        assert_eq!(refused, 200);
    });
}
