//! The certificates on both sides of an intercepted connection: the host's roots towards the origin, an authority of this
//! sandbox's own towards the program.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::policy::Host;
use crate::{Error, ErrorKind, Result};

/// Where systems keep the certificates that they trust, in one file of PEM.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/share/ssl/certs/ca-bundle.crt",
];

/// Largest file of certificates that is read; the largest in use have about 250 KiB.
const LARGEST: u64 = 2 << 20;

/// The certificates that a host trusts.
#[derive(Debug, Clone)]
pub struct Roots {
    path: PathBuf,
    pem: Vec<u8>,
    store: Arc<RootCertStore>,
}

impl Roots {
    /// Finds the host's file: what `SSL_CERT_FILE` names, else the first that is there of those that distributions use.
    pub fn path_of_host() -> Option<PathBuf> {
        let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let found = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()))?;
        // Where it is: programs of the sandbox find theirs in its place.
        Some(found.canonicalize().unwrap_or(found))
    }

    /// Reads the host's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when there is no such file; otherwise as [`Roots::read`].
    pub fn of_host() -> Result<Self> {
        let path = Self::path_of_host().ok_or_else(|| {
            let what = "this host has no file of trusted certificates to check origins with";
            Error::new(ErrorKind::Unsupported, what)
                .hint("install the distribution's ca-certificates, or set SSL_CERT_FILE")
        })?;
        Self::read(&path)
    }

    /// Reads a file of PEM certificates.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when it can't be read, is too large, or holds no certificate.
    pub fn read(path: &Path) -> Result<Self> {
        use std::io::Read;
        let what = |text: &str| format!("{text} trusted certificates from `{}`", path.display());
        let fail = |error: std::io::Error| Error::new(ErrorKind::Io, what("can't read")).because(error);
        let mut pem = Vec::new();
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(LARGEST + 1).read_to_end(&mut pem).map_err(fail)?;
        if pem.len() as u64 > LARGEST {
            return Err(Error::new(ErrorKind::Io, what("will not read that many")));
        }
        let mut store = RootCertStore::empty();
        // Bundles in use have a certificate or two that rustls does not take. Trusting one less is no danger.
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        if store.is_empty() {
            return Err(Error::new(ErrorKind::Io, what("found no")));
        }
        Ok(Self { path: path.to_owned(), pem, store: Arc::new(store) })
    }

    /// Every file of trusted certificates on this host, the one they were read from first: some programs have a path built in
    /// or written in a configuration of their own.
    pub fn places(&self) -> Vec<PathBuf> {
        let mut places = vec![self.path.clone()];
        for bundle in BUNDLES.iter().filter_map(|path| Path::new(path).canonicalize().ok()) {
            if bundle.is_file() && !places.contains(&bundle) {
                places.push(bundle);
            }
        }
        places
    }

    /// The file they were read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the proxy needs to stand between a program and an origin over TLS.
///
/// The authority's key is made here, is in this process's memory alone, and goes with it.
pub struct Interception {
    roots: Roots,
    authority: Issuer<'static, KeyPair>,
    /// The authority's certificate.
    certificate: rcgen::Certificate,
    /// The one key of all certificates that the program is shown.
    leaf_key: KeyPair,
    provider: Arc<CryptoProvider>,
    /// Towards origins: with HTTP/2 and without.
    clients: [Arc<ClientConfig>; 2],
    servers: Mutex<HashMap<(Host, bool), Arc<ServerConfig>>>,
}

/// Certificates kept; a wildcard may have any number of names below it.
const KEPT: usize = 512;

impl Interception {
    /// Makes an authority that nobody else knows. Origins are checked against `roots`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when no key or certificate could be made.
    pub fn new(roots: Roots) -> Result<Self> {
        let failed = |error: rcgen::Error| {
            Error::new(ErrorKind::Io, "can't make a certificate authority for the sandbox").because(error)
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(Vec::new()).map_err(failed)?;
        let name = format!("ringfence sandbox {:016x}", rand());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        let authority = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().map_err(failed)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = |protocols: &[&[u8]]| -> Result<_> {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| Error::new(ErrorKind::Io, "can't set up TLS").because(error))?
                .with_root_certificates(Arc::clone(&roots.store))
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Ok(Arc::new(config))
        };
        let clients = [client(&[b"http/1.1"])?, client(&[b"h2", b"http/1.1"])?];
        Ok(Self { roots, authority, certificate, leaf_key, provider, clients, servers: Mutex::default() })
    }

    /// The host's certificates, which origins are checked against.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What the program is to trust: the host's certificates and the authority's, as PEM.
    pub fn bundle(&self) -> Vec<u8> {
        let mut bundle = self.roots.pem.clone();
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
        bundle.extend_from_slice(self.certificate.pem().as_bytes());
        bundle
    }

    /// How to speak to an origin.
    pub(super) fn client(&self, http2: bool) -> Arc<ClientConfig> {
        Arc::clone(&self.clients[usize::from(http2)])
    }

    /// How to pass for a host towards the program, with HTTP/2 or HTTP/1.1.
    pub(super) fn server(&self, host: &Host, http2: bool) -> std::result::Result<Arc<ServerConfig>, BoxError> {
        let key = (host.clone(), http2);
        if let Some(known) = self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(known));
        }
        let mut params = params(vec![host.to_string()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.leaf_key, &self.authority)?;
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], secret)?;
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let config = Arc::new(config);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.len() >= KEPT {
            servers.clear();
        }
        servers.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

impl fmt::Debug for Interception {
    /// Leaves the keys out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interception").field("roots", &self.roots.path).finish_non_exhaustive()
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The host as TLS names it.
pub(super) fn server_name(host: &Host) -> std::result::Result<ServerName<'static>, BoxError> {
    Ok(match host {
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned())?,
        Host::Address(address) => ServerName::IpAddress((*address).into()),
    })
}

/// What all certificates have in common: good from yesterday on, for a year.
fn params(names: Vec<String>) -> std::result::Result<CertificateParams, rcgen::Error> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + 365 * DAY).into();
    Ok(params)
}

/// A number to tell authorities apart by.
fn rand() -> u64 {
    let mut bytes = [0; 8];
    // Without it two authorities have one name, and still two keys.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> Roots {
        Roots { path: "test".into(), pem: b"# none".to_vec(), store: Arc::new(RootCertStore::empty()) }
    }

    #[test]
    fn the_program_finds_what_it_is_shown_trusted() {
        let interception = Interception::new(roots()).unwrap();
        let bundle = interception.bundle();
        assert!(bundle.starts_with(b"# none\n-----BEGIN CERTIFICATE-----"));
        let mut trusted = RootCertStore::empty();
        assert_eq!(trusted.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten()), (1, 0));
        let client = ClientConfig::builder_with_provider(Arc::clone(&interception.provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let client = Arc::new(client);
        for host in ["api.example.com", "a_b.example", "203.0.113.9", "2001:db8::9"] {
            let host: Host = host.parse().unwrap();
            let server = interception.server(&host, true).unwrap();
            assert!(Arc::ptr_eq(&server, &interception.server(&host, true).unwrap()));
            // What comes early can be said again by whoever saw it.
            assert_eq!(server.max_early_data_size, 0);
            let Ok(name) = server_name(&host) else {
                assert!(host.to_string().contains('_'));
                continue;
            };
            let mut client = rustls::ClientConnection::new(Arc::clone(&client), name).unwrap();
            let mut server = rustls::ServerConnection::new(server).unwrap();
            let (mut up, mut down) = (Vec::new(), Vec::new());
            for _ in 0..4 {
                client.write_tls(&mut up).unwrap();
                server.read_tls(&mut std::mem::take(&mut up).as_slice()).unwrap();
                server.process_new_packets().unwrap();
                server.write_tls(&mut down).unwrap();
                client.read_tls(&mut std::mem::take(&mut down).as_slice()).unwrap();
                client.process_new_packets().unwrap();
            }
            assert!(!client.is_handshaking() && !server.is_handshaking(), "{host}");
        }
    }

    #[test]
    fn without_roots_it_says_so() {
        let error = Roots::read(Path::new("/nonexistent.pem")).unwrap_err();
        assert_eq!(error.to_string(), "can't read trusted certificates from `/nonexistent.pem`");
        assert!(Roots::read(Path::new("/dev/null")).unwrap_err().to_string().starts_with("found no trusted"));
    }
}
