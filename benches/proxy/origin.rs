//! An origin that sends as many bytes as its path says, and the certificates on both sides.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringfence::proxy::{Interception, Roots};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::{Outcome, Stream};

/// Who it is.
pub const NAME: &str = "origin.test";

pub struct Tls {
    server: Arc<ServerConfig>,
    /// Trusts the origin, and the proxy's authority.
    pub client: Arc<ClientConfig>,
    pub interception: Arc<Interception>,
}

impl Tls {
    pub fn new() -> Outcome<Self> {
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key)?;
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &issuer)?;
        let directory = tempfile::tempdir()?;
        let roots = directory.path().join("roots.pem");
        std::fs::write(&roots, authority.pem())?;
        let interception = Arc::new(Interception::new(Roots::read(&roots)?)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(CertificateDer::pem_slice_iter(&interception.bundle()).flatten());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Self { server: Arc::new(server), client: Arc::new(client), interception })
    }
}

/// Starts it, over TLS or not, and says on which port.
pub fn serve(tls: Option<&Tls>) -> Outcome<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let config = tls.map(|tls| Arc::clone(&tls.server));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                // Its client ends it.
                let _ = answer(stream, config);
            });
        }
    });
    Ok(port)
}

fn answer(stream: TcpStream, config: Option<Arc<ServerConfig>>) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match config {
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config)?, stream)),
        None => Box::new(stream),
    };
    let mut stream = BufReader::new(stream);
    let block = vec![0x5a; 1 << 18];
    loop {
        let (mut bytes, mut line) = (0, String::new());
        let mut first = true;
        while first || line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if first {
                bytes = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').parse()?;
                first = false;
            }
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        let first = bytes.min(block.len());
        stream.get_mut().write_all(&[head.as_bytes(), &block[..first]].concat())?;
        let mut left = bytes - first;
        while left > 0 {
            let some = left.min(block.len());
            stream.get_mut().write_all(&block[..some])?;
            left -= some;
        }
        stream.get_mut().flush()?;
    }
}
