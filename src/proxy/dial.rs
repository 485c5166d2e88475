//! Connects to the first address that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// How long an attempt is left alone before the next address is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// How many addresses of a name are tried; a name with more of them gets no more out of us.
const ATTEMPTS: usize = 16;

/// Connects to one of `addresses`, in their order but families taking turns, within `limit` in all.
///
/// # Errors
///
/// The first attempt's error, when every one failed; [`io::ErrorKind::TimedOut`] past the limit.
pub(super) async fn dial(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + limit;
    let mut waiting = interleave(addresses).into_iter().take(ATTEMPTS);
    let mut attempts = FuturesUnordered::new();
    let mut first_error = None;
    let race = async {
        loop {
            match waiting.next() {
                Some(address) => attempts.push(TcpStream::connect(address)),
                None if attempts.is_empty() => {
                    let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                    return Err(first_error.take().unwrap_or_else(nothing));
                }
                None => {}
            }
            let more = waiting.len() > 0;
            tokio::select! {
                Some(outcome) = attempts.next() => match outcome {
                    Ok(stream) => return Ok(stream),
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                },
                () = sleep(HEAD_START), if more => {}
            }
        }
    };
    let stream = match timeout_at(deadline, race).await {
        Ok(outcome) => outcome?,
        Err(_) => {
            let text = format!("no answer within {} s", limit.as_secs_f32());
            return Err(first_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::TimedOut, text)));
        }
    };
    tune(&stream);
    Ok(stream)
}

/// Sends small writes at once, and notices after some minutes when the other end is gone without a word.
///
/// Neither is needed for the exchange to be right, so a kernel that refuses is not an error.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
}

/// Makes the stream's end a reset, so that the other end does not take what it has for the whole.
pub(super) fn reset(stream: &TcpStream) {
    // Should it fail, the stream just ends.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Makes the two families take turns, beginning with the first address's.
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut other = other.into_iter();
    let mut turns = Vec::with_capacity(addresses.len());
    for address in preferred {
        turns.push(address);
        turns.extend(other.next());
    }
    turns.extend(other);
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_nobody_is_lost() {
        let addresses: Vec<SocketAddr> = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "[::4]:1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let turns: Vec<String> = interleave(&addresses).iter().map(|address| address.ip().to_string()).collect();
        assert_eq!(turns, ["::1", "1.1.1.1", "::2", "::3", "::4"]);
        assert!(interleave(&[]).is_empty());
    }
}
