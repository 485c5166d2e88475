//! Both ends of an intercepted connection: origins with certificates of a test's own, and clients that trust the proxy's.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringfence::proxy::{Interception, Roots};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::network::{Running, bind};

pub type Body = BoxBody<Bytes, Infallible>;

/// Who trusts whom.
pub struct Tls {
    pub interception: Arc<Interception>,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    hang_up: tokio::sync::broadcast::Sender<()>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Tls {
    /// An authority that the proxy trusts, with a certificate for `web.example`, and the proxy's own.
    pub fn new() -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["web.example", "203.0.113.9", "2001:db8::9"].map(str::to_owned)).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let roots = directory.path().join("roots.pem");
        std::fs::write(&roots, authority.pem()).unwrap();
        let interception = Arc::new(Interception::new(Roots::read(&roots).unwrap()).unwrap());
        let (hang_up, _) = tokio::sync::broadcast::channel(1);
        Self { interception, chain: vec![leaf.der().clone()], key: key.serialize_der(), hang_up }
    }

    /// Ends every connection to an origin over HTTP/2.
    pub fn hang_up(&self) {
        self.hang_up.send(()).unwrap();
    }

    /// A server at `web.example` that speaks whatever its handler does inside of TLS; says on which port.
    pub async fn server<F: Future<Output = ()> + Send + 'static>(
        &self,
        protocols: &[&str],
        handler: impl Fn(tokio_rustls::server::TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
    ) -> u16 {
        let acceptor = self.acceptor(protocols);
        crate::network::server("203.0.113.9", move |stream| {
            let (acceptor, handler) = (acceptor.clone(), handler.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    handler(stream).await;
                }
            }
        })
        .await
    }

    fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// An origin at `web.example` that speaks those protocols; says on which port.
    pub fn origin<F>(
        &self,
        protocols: &[&str],
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> u16
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.origin_at("203.0.113.9", protocols, answer)
    }

    /// The same at another address.
    pub fn origin_at<F>(
        &self,
        address: &str,
        protocols: &[&str],
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> u16
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = bind(address, 0);
        let port = listener.local_addr().unwrap().port();
        let acceptor = self.acceptor(protocols);
        let hang_up = self.hang_up.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, mut hung_up) = (acceptor.clone(), answer.clone(), hang_up.subscribe());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let io = TokioIo::new(stream);
                    if http2 {
                        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        // What tests measure is the proxy's.
                        let server = server.max_send_buf_size(1 << 14).serve_connection(io, service);
                        tokio::select! {
                            _ = server => {}
                            _ = hung_up.recv() => {}
                        }
                    } else {
                        let server = hyper::server::conn::http1::Builder::new();
                        let _ = server.serve_connection(io, service).with_upgrades().await;
                    }
                });
            }
        });
        port
    }

    /// Begins TLS through the proxy, as a program that trusts what it was given.
    pub async fn dial(&self, proxy: &Running, port: u16, protocols: &[&str]) -> TlsStream<TcpStream> {
        let tunnel = proxy.tunnel(&format!("web.example:{port}")).await;
        tunnel.set_nodelay(true).unwrap();
        self.begin(tunnel, "web.example", protocols).await.unwrap()
    }

    /// Begins TLS in a tunnel, and asks for that name.
    pub async fn begin(&self, tunnel: TcpStream, name: &str, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut trusted = RootCertStore::empty();
        trusted
            .add_parsable_certificates(CertificateDer::pem_slice_iter(&self.interception.bundle()).skip(1).flatten());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name.to_owned().try_into().unwrap(), tunnel).await
    }
}
