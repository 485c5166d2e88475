//! Two connections joined: bytes both ways until both have said that they are done.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;

use super::body::Driver;
use super::client::Client;
use super::dial::reset;
use super::hello::WRONG_NAME;
use super::pulse::{Busy, Pulse, Watched};
use crate::policy::DnsName;

/// What is copied at a time, each way: little until there is more, so that an idle tunnel holds little.
const SMALL: usize = 8 * 1024;
const LARGE: usize = 256 * 1024;

/// What becomes of a client's connection after its last exchange. Runs on the connection's own task.
pub(super) type Tunnel = BoxFuture<'static, ()>;

/// Who TLS in a tunnel must be for, and who hears that it is for somebody else.
pub(super) struct Check {
    pub(super) name: DnsName,
    pub(super) tell: Box<dyn FnOnce(String) + Send>,
}

/// Joins the client to a plain connection.
pub(super) fn to_stream(client: OnUpgrade, origin: TcpStream, check: Option<Check>, busy: Option<Busy>) -> Tunnel {
    Box::pin(async move {
        if let Err(error) = join(client, origin, Bytes::new(), check, busy).await {
            tracing::debug!(%error, "a tunnel ended badly");
        }
    })
}

/// Joins the client to a connection that has just switched protocols.
pub(super) fn to_upgraded(
    client: OnUpgrade,
    origin: OnUpgrade,
    driver: Driver,
    check: Option<Check>,
    busy: Option<Busy>,
) -> Tunnel {
    Box::pin(async move {
        let joined = async {
            let (origin, early) = taken(origin, driver).await?;
            join(client, origin, early, check, busy).await
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "a tunnel ended badly");
        }
    })
}

/// Joins two connections that have just switched protocols, whatever they run on. `pulse` is the client's.
pub(super) fn to_switched(client: OnUpgrade, origin: OnUpgrade, driver: Driver, pulse: Arc<Pulse>) -> Tunnel {
    Box::pin(async move {
        let joined = async {
            let (client, origin) = futures::future::try_join(client, origin).await.map_err(io::Error::other)?;
            // The driver has handed its connection over.
            drop(driver);
            // Cut with the tunnel that it is in.
            let (copied, client, origin) =
                both_ways(TokioIo::new(client), TokioIo::new(origin), std::future::pending()).await;
            if copied.is_err() {
                // One end was reset; so is the other. Their sockets lie too deep to be told.
                pulse.doom();
            }
            drop((client, origin));
            copied
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

/// Takes the client's connection from the server that has answered it.
pub(super) async fn client(switched: OnUpgrade) -> io::Result<Client> {
    let Parts { io, read_buf, .. } = parts::<Watched>(switched.await.map_err(io::Error::other)?)?;
    Ok(Client::new(read_buf, io.into_inner()))
}

/// Copies until both directions have ended; the end of one is passed on and leaves the other open. `early` is what the
/// origin has sent already.
async fn join(
    switched: OnUpgrade,
    origin: TcpStream,
    early: Bytes,
    check: Option<Check>,
    busy: Option<Busy>,
) -> io::Result<()> {
    let mut client = client(switched).await?;
    let (name, tell) = check.map(|Check { name, tell }| (name, tell)).unzip();
    if let Some(name) = name {
        client = client.check(name);
    }
    client.write_all(&early).await?;
    let (copied, mut client, origin) = both_ways(client, origin, Busy::cut_of(busy.as_ref())).await;
    if let (Some(other), Some(tell)) = (client.other.take(), tell) {
        tell(other);
        // No hello of that name has reached the origin, and no keys are there yet. It is told in its own words.
        let _ = client.write_all(&WRONG_NAME).await;
        let _ = client.shutdown().await;
    } else if copied.is_err() {
        // One end was reset; so is the other, which could else take what it has for the whole.
        client.into_io().reset();
        reset(&origin);
    }
    copied
}

/// Copies both ways until both have ended, one has failed, or they are `cut`; gives the two back.
async fn both_ways<A, B>(one: A, other: B, cut: impl Future<Output = ()>) -> (io::Result<()>, A, B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut one_read, mut one_write) = split(one);
    let (mut other_read, mut other_write) = split(other);
    let copied =
        futures::future::try_join(copy(&mut one_read, &mut other_write), copy(&mut other_read, &mut one_write));
    let copied = tokio::select! {
        copied = copied => copied.map(drop),
        () = cut => Err(cut_short()),
    };
    (copied, one_read.unsplit(one_write), other_read.unsplit(other_write))
}

/// Why a tunnel ends that the policy has taken back.
pub(super) fn cut_short() -> io::Error {
    io::Error::other("its destination is let through no longer")
}

/// Copies one way, and passes the end on.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(SMALL);
    loop {
        let got = from.read_buf(&mut buffer).await?;
        if got == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
        to.flush().await?;
        let size = buffer.capacity();
        buffer.clear();
        if got == size && size < LARGE {
            buffer = BytesMut::with_capacity(size * 2);
        } else if got < SMALL && size > SMALL {
            buffer = BytesMut::with_capacity(SMALL);
        }
    }
}

/// Takes hyper's box off the socket, so that bytes go through no dynamic dispatch.
fn parts<T>(upgraded: Upgraded) -> io::Result<Parts<TokioIo<T>>>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    upgraded.downcast().map_err(|_| io::Error::other("the connection is of another kind"))
}
