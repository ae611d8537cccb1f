//! The PEM files of TLS, by name.

use crate::otlp::config::env::{Env, QUOTED, Variable};
use crate::otlp::config::secrets::HIDDEN;
use crate::otlp::config::shown::shown_path;
use crate::otlp::error::Error;

/// The files that the variables name. They are read when a connection is made, since they are replaced before they
/// expire.
pub(crate) struct Identity {
    pub(crate) authority: Option<Variable>,
    pub(crate) client: Option<Client>,
    /// The file and the directory of the system's authorities, if they are not in the usual places.
    pub(crate) system: Vec<Variable>,
}

const SYSTEM_FILE: &str = "SSL_CERT_FILE";
const SYSTEM: [&str; 2] = [SYSTEM_FILE, "SSL_CERT_DIR"];

/// A client certificate and its key.
pub(crate) struct Client {
    pub(crate) certificate: Variable,
    pub(crate) key: Variable,
}

impl Identity {
    pub(crate) fn new(env: &Env<'_>) -> Result<Self, Error> {
        let (certificate, key) = (file(env, "CLIENT_CERTIFICATE")?, file(env, "CLIENT_KEY")?);
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Client { certificate, key }),
            (None, None) => None,
            (Some(certificate), None) => {
                return Err(invalid(&certificate, "set OTEL_EXPORTER_OTLP_CLIENT_KEY too"));
            }
            (None, Some(key)) => return Err(invalid(&key, "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE too")),
        };
        let mut system = Vec::new();
        for name in SYSTEM {
            system.extend(env.get(name)?);
        }
        // Unlike other variables, an empty one is read: as the name of a file that is not there.
        if env.is_empty(SYSTEM_FILE) {
            system.push(Variable::new(SYSTEM_FILE, ""));
        }
        Ok(Identity { authority: file(env, "CERTIFICATE")?, client, system })
    }
}

fn file(env: &Env<'_>, setting: &str) -> Result<Option<Variable>, Error> {
    let Some(file) = env.exporter(setting)? else { return Ok(None) };
    match file.is_quoted() {
        true => Err(invalid(&file, QUOTED)),
        false => Ok(Some(file)),
    }
}

/// Shows the value only if it looks like the name of a file.
pub(crate) fn invalid(file: &Variable, problem: &str) -> Error {
    let shown = shown_path(&file.value);
    let problem = match shown == HIDDEN {
        true => format!("it must be the name of a PEM file; {problem}"),
        false => problem.to_owned(),
    };
    Error::setting(&file.name, &shown, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::config::env::with;

    const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
    const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

    fn error(set: &[(&str, &str)]) -> String {
        with(set, Identity::new).err().unwrap().to_string()
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        assert_eq!(error(&[(CERTIFICATE, "/c.pem")]), format!("{CERTIFICATE}=/c.pem: set {KEY} too"));
        assert_eq!(error(&[(KEY, "/c.key")]), format!("{KEY}=/c.key: set {CERTIFICATE} too"));
        assert_eq!(
            error(&[(KEY, "\"/c.key\"")]),
            format!("{KEY}=\"/c.key\": the value stands in quotes; remove them")
        );
    }

    #[test]
    fn the_text_of_a_key_is_not_shown() {
        for key in [
            "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\\ns3cret\\n-----END PRIVATE KEY-----",
            "LS0tLS1CRUdJTiBs3cretBLRVktLS0tLQ==",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s3cretDozjgNryP4J3jVmNHl0w5N",
            "s3cret.a1b2.c3d4",
            "/s3cret+x0Yz1Ab2Cd3Ef4Gh5Ij6Kl==",
        ] {
            let error = error(&[(KEY, key)]);
            assert!(
                error.contains("=[hidden]: it must be the name of a PEM file") && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
