//! What the built-in proxy costs a connection, a request and a byte, beside a direct connection, a bare relay in the kernel, and
//! proxies of others.
//!
//! ```sh
//! cargo bench --bench proxy             # needs root, and tinyproxy and squid for their columns
//! cargo bench --bench proxy -- --quick
//! ```
//!
//! Client, proxy and origin are on the loopback of a network namespace of its own. In one round each way is taken once, in turn, so
//! that all see the same machine. `docs/benchmarks.md` tells what was found.

mod origin;
#[allow(dead_code)] // Each bench uses a part of it.
#[path = "../setup/time.rs"]
mod time;
mod ways;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringfence::kernel::netns::Netns;
use ringfence::kernel::rtnetlink::{Batch, Request, Socket};
use ringfence::link::IfIndex;

use origin::Tls;
use time::Times;
use ways::{Way, Ways};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes of a small answer.
const SMALL: usize = 1024;

/// Something that requests are made on.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn main() {
    // Cargo passes `--bench`.
    let quick = std::env::args().any(|argument| argument == "--quick");
    let outcome = Netns::create_with(Socket::open).map_err(Into::into).and_then(|(netns, links)| {
        links?.commit(Batch::from([Request::up(IfIndex(1))]))?;
        netns.run(|| bench(quick))?
    });
    if let Err(error) = outcome {
        eprintln!("can't run the benchmarks: {error}");
        std::process::exit(1);
    }
}

/// Must run on a thread in a namespace of its own.
fn bench(quick: bool) -> Outcome<()> {
    let tls = Tls::new()?;
    let clear = origin::serve(None)?;
    let secure = origin::serve(Some(&tls))?;
    let mut ways = Ways::start(&tls, secure)?;
    ways.relay_to(clear)?;
    let (rounds, bulks, bytes) = if quick { (50, 1, 64 << 20) } else { (2000, 5, 1 << 30) };
    for (title, port, all) in [("in the clear", clear, ways.clear()), ("over TLS", secure, ways.tls())] {
        println!("{title} (median / minimum; xN: so many times the first)");
        println!("{:<34} {:>24} {:>24} {:>20}", "", "connection + request", "request", "throughput");
        let mut opened = vec![Times::default(); all.len()];
        let mut asked = vec![Times::default(); all.len()];
        let mut bulk = vec![Times::default(); all.len()];
        let mut kept: Vec<_> = all.iter().map(|way| way.open(port, &tls)).collect::<Outcome<_>>()?;
        for round in 0..rounds {
            for (index, way) in all.iter().enumerate() {
                let start = Instant::now();
                let mut stream = way.open(port, &tls)?;
                ask(&mut *stream, way, port, SMALL)?;
                opened[index].note(round > 10, start);
                let start = Instant::now();
                ask(&mut *kept[index], way, port, SMALL)?;
                asked[index].note(round > 10, start);
            }
        }
        // Client, proxy and origin are this process: whatever any of them held of a body would be in here.
        let before = peak()?;
        for _ in 0..bulks {
            for (index, way) in all.iter().enumerate() {
                let mut stream = way.open(port, &tls)?;
                let start = Instant::now();
                ask(&mut *stream, way, port, bytes)?;
                bulk[index].note(true, start);
            }
        }
        for (index, way) in all.iter().enumerate() {
            println!(
                "{:<34} {:>24} {:>24} {:>20}",
                way.name,
                compared(&opened[index], &opened[0]),
                compared(&asked[index], &asked[0]),
                rate(bytes, bulk[index].median(), bulk[0].median()),
            );
        }
        let grown = peak()? - before;
        println!("{} MiB passed each way, and the process grew by {grown} KiB\n", bytes >> 20);
        if grown > 32 << 10 {
            return Err(format!("a body was held: {grown} KiB").into());
        }
    }
    Ok(())
}

/// Peak resident memory of the process.
///
/// # Units
///
/// KiB.
fn peak() -> Outcome<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}

fn compared(times: &Times, first: &Times) -> String {
    let ratio = times.median().as_secs_f64() / first.median().as_secs_f64();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    format!("{:.0} / {:.0} µs x{ratio:.2}", micros(times.median()), micros(times.min()))
}

fn rate(bytes: usize, time: Duration, first: Duration) -> String {
    let gigabytes = bytes as f64 / 1e9 / time.as_secs_f64();
    format!("{gigabytes:.2} GB/s x{:.2}", first.as_secs_f64() / time.as_secs_f64())
}

/// Asks for that many bytes, and reads them.
fn ask(stream: &mut dyn Stream, way: &Way, port: u16, bytes: usize) -> Outcome<()> {
    let authorization = if way.secret { "Authorization: Bearer ringfence-T-secret\r\n" } else { "" };
    let request = format!("GET /{bytes} HTTP/1.1\r\nHost: {}:{port}\r\n{authorization}\r\n", origin::NAME);
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut buffer = vec![0; 1 << 18];
    let mut held = 0;
    let head = loop {
        let got = stream.read(&mut buffer[held..])?;
        if got == 0 {
            return Err("the connection ended in the middle of an answer".into());
        }
        held += got;
        if let Some(at) = buffer[..held].windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(format!("{}: {text}{}", way.name, String::from_utf8_lossy(&buffer[head..held])).into());
    }
    if text.contains("transfer-encoding: chunked") {
        return chunks(stream, buffer, head, held, bytes);
    }
    let mut left = bytes - (held - head);
    while left > 0 {
        let most = left.min(buffer.len());
        match stream.read(&mut buffer[..most])? {
            0 => return Err("the connection ended in the middle of a body".into()),
            got => left -= got,
        }
    }
    Ok(())
}

/// Reads a body that is cut into chunks.
fn chunks(stream: &mut dyn Stream, mut buffer: Vec<u8>, mut from: usize, mut held: usize, bytes: usize) -> Outcome<()> {
    let mut total = 0;
    loop {
        // A line with the size; then as many bytes, and a line end.
        let line = loop {
            if let Some(at) = buffer[from..held].windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            buffer.copy_within(from..held, 0);
            (from, held) = (0, held - from);
            match stream.read(&mut buffer[held..])? {
                0 => return Err("the connection ended in the middle of a chunk's size".into()),
                got => held += got,
            }
        };
        let size = usize::from_str_radix(std::str::from_utf8(&buffer[from..from + line])?, 16)?;
        from += line + 2;
        let mut left = size + 2;
        while left > 0 {
            if from == held {
                (from, held) = (0, stream.read(&mut buffer)?);
                if held == 0 {
                    return Err("the connection ended in the middle of a chunk".into());
                }
            }
            let taken = left.min(held - from);
            (from, left) = (from + taken, left - taken);
        }
        total += size;
        if size == 0 {
            return if total == bytes { Ok(()) } else { Err(format!("{total} bytes for {bytes}").into()) };
        }
    }
}

/// Opens a connection with small writes sent at once.
fn dial(port: u16) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
