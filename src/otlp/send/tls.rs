//! TLS: the authorities that are trusted, the client's certificate, and what goes wrong with them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, ConfigBuilder, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::otlp::config::env::Variable;
use crate::otlp::config::identity::{Identity, invalid};
use crate::otlp::error::Error;
use crate::otlp::send::outcome::{Retry, SendError};
use crate::otlp::send::roots;
use crate::otlp::send::stream::Stream;
use crate::util::mutex::Mutex;

pub(crate) struct Tls {
    identity: Identity,
    /// The configuration that was made last, and the hash of the files that it was made from.
    last: Mutex<(u64, Arc<ClientConfig>)>,
}

impl Tls {
    pub(crate) fn new(identity: Identity) -> Result<Self, Error> {
        let stamp = stamp(&identity);
        let config = Arc::new(config(&identity)?);
        Ok(Tls { identity, last: Mutex::new((stamp, config)) })
    }

    /// Reads the files again if they have changed.
    fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let stamp = stamp(&self.identity);
        let mut last = self.last.lock();
        if last.0 != stamp {
            *last = (stamp, Arc::new(config(&self.identity)?));
        }
        Ok(Arc::clone(&last.1))
    }

    /// `protocol` is that of ALPN.
    pub(crate) async fn handshake(
        &self,
        host: &str,
        protocol: &[u8],
        peer: &Peer<'_>,
        stream: Stream,
    ) -> Result<TokioIo<TlsStream<TokioIo<Stream>>>, SendError> {
        let to = peer.name;
        // The files may be in the middle of being replaced.
        let config = self.config().map_err(|error| SendError::new(format!("{to}: {error}"), Retry::Soon))?;
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = vec![protocol.to_vec()];
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host)
            .map_err(|_| SendError::new(format!("{to}: its host is not a name for TLS"), Retry::Never))?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, TokioIo::new(stream)).await;
        handshake.map(TokioIo::new).map_err(|error| failure(peer, &error))
    }
}

/// The other side of a connection, for errors.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'a str,
    /// The name of the setting with its URL: the endpoint, or the variable of a proxy.
    pub(crate) setting: &'a str,
}

/// Hashes the contents of all files. A file that cannot be read has none.
fn stamp(identity: &Identity) -> u64 {
    let client = identity.client.as_ref();
    let files = [
        identity.authority.as_ref(),
        client.map(|client| &client.certificate),
        client.map(|client| &client.key),
    ];
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.and_then(|file| fs::read(&file.value).ok()).hash(&mut hasher);
    }
    for path in roots::system_files(&identity.system) {
        fs::read(&path).ok().hash(&mut hasher);
    }
    hasher.finish()
}

fn config(identity: &Identity) -> Result<ClientConfig, Error> {
    let roots = match &identity.authority {
        Some(authority) => roots::of_file(authority, certificates(authority)?)?,
        None => roots::of_system(&identity.system)?,
    };
    let trusting = trusting(roots)?;
    let Some(client) = &identity.client else { return Ok(trusting.with_no_client_auth()) };
    let key = key(&client.key)?;
    trusting.with_client_auth_cert(certificates(&client.certificate)?, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            invalid(&client.certificate, &format!("it does not belong to the key of {}", client.key.name))
        }
        error => invalid(&client.certificate, &error.to_string()),
    })
}

fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let versions = builder.with_safe_default_protocol_versions();
    Ok(versions.map_err(|error| Error::Start(error.to_string()))?.with_root_certificates(roots))
}

fn read(file: &Variable) -> Result<Vec<u8>, Error> {
    fs::read(&file.value).map_err(|error| invalid(file, &format!("the file cannot be read: {error}")))
}

fn certificates(file: &Variable) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(invalid(file, &format!("there is no certificate in that file{}", binary(&pem, "x509"))))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(invalid(file, "the file is not valid PEM")),
    }
}

/// What to do with a file that is not a text, hence in DER.
fn binary(content: &[u8], command: &str) -> String {
    match content.starts_with(&[0x30]) {
        true => format!("; it may be DER; convert it with `openssl {command} -inform DER -in FILE -out PEM`"),
        false => String::new(),
    }
}

fn key(file: &Variable) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read(file)?;
    if String::from_utf8_lossy(&pem).contains("ENCRYPTED") {
        return Err(invalid(
            file,
            "the key is encrypted; decrypt it, for example with `openssl pkey -in KEY -out PLAIN`",
        ));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            invalid(file, &format!("there is no private key in that file{}", binary(&pem, "pkey")))
        }
        _ => invalid(file, "the file is not valid PEM"),
    })
}

/// Why a handshake failed.
fn failure(peer: &Peer<'_>, error: &io::Error) -> SendError {
    let Peer { name: to, setting } = peer;
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(tls) = tls else {
        return SendError::new(
            format!(
                "{to} ended the TLS handshake ({error}); if it does not expect TLS, begin {setting} with http://"
            ),
            Retry::Soon,
        );
    };
    let sentence = sentence(tls).replace(ENDPOINT, setting);
    SendError::new(format!("{to} {sentence}"), Retry::Never)
}

/// The name of the URL in the sentences.
pub(crate) const ENDPOINT: &str = "the endpoint";

/// Returns the remedy, and the error in parentheses.
pub(crate) fn sentence(error: &rustls::Error) -> String {
    let advice = match error {
        rustls::Error::InvalidMessage(_) => {
            "does not speak TLS; begin the endpoint with http://, or use the port that expects TLS"
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "has a certificate that is self-signed or of an authority that is not trusted here; \
             set OTEL_EXPORTER_OTLP_CERTIFICATE to the certificate of that authority"
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            "has a self-signed certificate of an authority, which cannot name a server; \
             give it one that is issued with CA:FALSE"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "has a certificate that has expired; renew it",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "has a certificate that is not valid yet; compare the clocks of both machines",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "has a certificate for another host; use one of its names in the endpoint",
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "wants a client certificate; set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY"
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        ) => "refuses the client certificate; renew OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "does not speak the protocol of OTEL_EXPORTER_OTLP_PROTOCOL on this port"
        }
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "has no certificate for this host; use one of its names in the endpoint"
        }
        rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity,
        )
        | rustls::Error::PeerIncompatible(_) => {
            "has no version or cipher of TLS in common with this client; let it speak TLS 1.2 or 1.3"
        }
        _ => "refuses TLS, or is refused; compare the settings of TLS on both sides",
    };
    format!("{advice} ({error})")
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::util::fuzz::{edited, run};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBkTCCATegAwIBAgIUWx1ntwl2jsYtrdoF1DPVBTM4DOswCgYIKoZIzj0EAwIw\n\
        HjEcMBoGA1UEAwwTYXV0aG9yaXR5IG9mIGEgdGVzdDAeFw0yNjExMjcyMzEwNTRa\n\
        Fw0zNjExMjQyMzEwNTRaMB4xHDAaBgNVBAMME2F1dGhvcml0eSBvZiBhIHRlc3Qw\n\
        WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARbc1NEL+h9ER3PpD09he6PrCZjWHN5\n\
        WIYYB1qfXGCmbvHHH9wcVzd/J1KyDJ2VAmAZsHqdC0AHw2DD5CTvd17io1MwUTAd\n\
        BgNVHQ4EFgQUT8rt33GhuRvXfNAjqGRwuWNe7kQwHwYDVR0jBBgwFoAUT8rt33Gh\n\
        uRvXfNAjqGRwuWNe7kQwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBF\n\
        AiBGMC0Oa9mQvA1y228oSXBN5yXPtHgTPM4RsLsZfiOToAIhALjt8TPTsW6sFINP\n\
        5+MkK731DANZT3JoYM92q1ZcXnbc\n\
        -----END CERTIFICATE-----\n";

    #[test]
    fn any_file_of_certificates_is_read_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let file = Variable::new("OTEL_EXPORTER_OTLP_CERTIFICATE", path.to_str().unwrap());
        // The form is that of a key, and the content is not.
        let key = CERTIFICATE.replace("CERTIFICATE", "PRIVATE KEY");
        run(2_000, 4 << 20, |u| {
            let content =
                edited(u, &[CERTIFICATE.as_bytes(), key.as_bytes(), CERTIFICATE.repeat(3).as_bytes()])?;
            fs::write(&path, content).unwrap();
            let roots = certificates(&file).and_then(|certificates| roots::of_file(&file, certificates));
            if let Err(error) = &roots {
                assert!(!error.to_string().contains(&CERTIFICATE[60..90]), "{error}");
            }
            let _ = super::key(&file);
            Ok(roots.is_ok())
        });
    }
}
