//! https: whom we trust and who we are.

use std::sync::Arc;

use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::otlp::config::env::{Variable, Variables};
use crate::otlp::config::target::{Protocol, Target};
use crate::otlp::error::Error;

/// The files that the variables name. They are read only if the endpoint is https.
pub(in crate::otlp) struct Identity {
    authority: Option<Variable>,
    client: Option<Client>,
}

struct Client {
    certificate: Variable,
    key: Variable,
}

impl Identity {
    pub(in crate::otlp) fn new(variables: &Variables<'_>) -> Result<Self, Error> {
        let client = match (variables.exporter("CLIENT_CERTIFICATE")?, variables.exporter("CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some(Client { certificate, key }),
            (None, None) => None,
            (Some(certificate), None) => return Err(certificate.invalid("the client key is not set")),
            (None, Some(key)) => return Err(key.invalid("the client certificate is not set")),
        };
        Ok(Identity { authority: variables.exporter("CERTIFICATE")?, client })
    }

    pub(in crate::otlp) fn connector(
        &self,
        tcp: HttpConnector,
        target: &Target,
    ) -> Result<HttpsConnector<HttpConnector>, Error> {
        let config = match target.endpoint.scheme() == Some(&Scheme::HTTPS) {
            true => self.config()?,
            false => trusting(RootCertStore::empty())?.with_no_client_auth(),
        };
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        Ok(match target.protocol {
            Protocol::Grpc => builder.enable_http2().wrap_connector(tcp),
            Protocol::HttpProtobuf => builder.enable_http1().wrap_connector(tcp),
        })
    }

    fn config(&self) -> Result<ClientConfig, Error> {
        let trusting = trusting(self.roots()?)?;
        match &self.client {
            None => Ok(trusting.with_no_client_auth()),
            Some(Client { certificate, key }) => {
                let secret = PrivateKeyDer::from_pem_file(&key.value)
                    .map_err(|error| key.invalid(describe(&error)))?;
                trusting
                    .with_client_auth_cert(certificates(certificate)?, secret)
                    .map_err(|error| certificate.invalid(error.to_string()))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.authority {
            Some(authority) => {
                for certificate in certificates(authority)? {
                    roots.add(certificate).map_err(|error| authority.invalid(error.to_string()))?;
                }
            }
            // Systems have odd certificates among their many: what cannot be read is left out.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                #[cfg(feature = "otlp-tls-webpki-roots")]
                if roots.is_empty() {
                    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                }
            }
        }
        match roots.is_empty() {
            true => Err(Error::Start(
                "this system has no certificates of authorities; set OTEL_EXPORTER_OTLP_CERTIFICATE, \
                 or use the Cargo feature `otlp-tls-webpki-roots`"
                    .into(),
            )),
            false => Ok(roots),
        }
    }
}

fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let versions = builder.with_safe_default_protocol_versions();
    Ok(versions.map_err(|error| Error::Start(error.to_string()))?.with_root_certificates(roots))
}

fn certificates(file: &Variable) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(&file.value).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(file.invalid("there is no certificate in that file"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(file.invalid(describe(&error))),
    }
}

fn describe(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => format!("that file cannot be read: {error}"),
        Error::NoItemsFound => "there is nothing of this kind in that file".into(),
        other => format!("that file is not valid PEM: {other}"),
    }
}

/// Whether a certificate, ours or theirs, is the reason. It will not be a better one in a second.
pub(in crate::otlp) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    // An `io::Error` leaves out the error that it is made of when it tells its source.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || inner.is_some_and(|inner| is_refusal(inner))
        || error.source().is_some_and(is_refusal)
}
