//! Two connections joined: bytes both ways until both have said that they are done.

use std::io;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use super::body::Driver;
use super::dial::reset;
use super::pulse::{Busy, Watched};

/// What is copied at a time, each way.
const CHUNK: usize = 16 * 1024;

/// What becomes of a client's connection after its last exchange. Runs on the connection's own task.
pub(super) type Tunnel = BoxFuture<'static, ()>;

/// Joins the client to a plain connection.
pub(super) fn to_stream(client: OnUpgrade, origin: TcpStream, busy: Busy) -> Tunnel {
    Box::pin(async move {
        if let Err(error) = join(client, origin, Bytes::new(), &busy).await {
            tracing::debug!(%error, "a tunnel ended badly");
        }
    })
}

/// Joins the client to a connection that has just switched protocols.
pub(super) fn to_upgraded(client: OnUpgrade, origin: OnUpgrade, driver: Driver, busy: Busy) -> Tunnel {
    Box::pin(async move {
        let joined = async {
            let (origin, early) = taken(origin, driver).await?;
            join(client, origin, early, &busy).await
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "a tunnel ended badly");
        }
    })
}

/// Takes a connection that has just switched protocols from its driver, with what the other end has sent already.
pub(super) async fn taken(switched: OnUpgrade, driver: Driver) -> io::Result<(TcpStream, Bytes)> {
    let switched = switched.await.map_err(io::Error::other)?;
    // The driver has handed its connection over.
    drop(driver);
    let Parts { io, read_buf, .. } = parts::<TcpStream>(switched)?;
    Ok((io.into_inner(), read_buf))
}

/// Copies until both directions have ended; the end of one is passed on and leaves the other open. `early` is what the
/// origin has sent already.
async fn join(client: OnUpgrade, mut origin: TcpStream, early: Bytes, busy: &Busy) -> io::Result<()> {
    let client = client.await.map_err(io::Error::other)?;
    let Parts { io, read_buf, .. } = parts::<Watched>(client)?;
    let mut client = io.into_inner();
    client.write_all(&early).await?;
    origin.write_all(&read_buf).await?;
    let copied = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut client, &mut origin, CHUNK, CHUNK) => copied,
        () = busy.cut() => Err(io::Error::other("its destination is let through no longer")),
    };
    if copied.is_err() {
        // One end was reset; so is the other, which could else take what it has for the whole.
        reset(client.into_stream());
        reset(origin);
    }
    copied.map(drop)
}

/// Takes hyper's box off the socket, so that bytes go through no dynamic dispatch.
fn parts<T>(upgraded: Upgraded) -> io::Result<Parts<TokioIo<T>>>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    upgraded.downcast().map_err(|_| io::Error::other("the connection is of another kind"))
}
