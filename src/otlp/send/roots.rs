//! The authorities that are trusted: those of a file, of the system, or of Mozilla.

use std::path::{Path, PathBuf};
use std::{env, fs};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls_native_certs::{CertificateResult, ErrorKind};

use crate::otlp::config::env::{QUOTED, Variable};
use crate::otlp::config::identity::invalid;
use crate::otlp::config::shown::shown_path;
use crate::otlp::error::Error;
use crate::util::log;
use crate::util::mutex::Mutex;

pub(crate) fn of_file(
    file: &Variable,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| invalid(file, &error.to_string()))?;
    }
    Ok(roots)
}

pub(crate) fn of_system(variables: &[Variable]) -> Result<RootCertStore, Error> {
    #[cfg(feature = "otlp-tls-webpki-roots")]
    let fallback = webpki_roots::TLS_SERVER_ROOTS;
    #[cfg(not(feature = "otlp-tls-webpki-roots"))]
    let fallback = &[];
    let (roots, warning) = choose(rustls_native_certs::load_native_certs(), variables, fallback)?;
    // Each exporter reads the authorities, and again when their files change.
    static WARNED: Mutex<Option<String>> = Mutex::new(None);
    let before = std::mem::replace(&mut *WARNED.lock(), warning.clone());
    if let Some(warning) = warning.filter(|warning| before.as_ref() != Some(warning)) {
        log::warn("a variable is ignored", &warning);
    }
    Ok(roots)
}

/// The files that the variables name, and those in the directories that they name.
pub(crate) fn system_files(variables: &[Variable]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in variables.iter().flat_map(|variable| env::split_paths(&variable.value)) {
        match fs::read_dir(&path) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => files.push(path),
        }
    }
    files.sort_unstable();
    files
}

/// The authorities of the system, or else the fallback; and what to warn of.
fn choose(
    found: CertificateResult,
    variables: &[Variable],
    fallback: &[TrustAnchor<'static>],
) -> Result<(RootCertStore, Option<String>), Error> {
    let mut roots = RootCertStore::empty();
    // Systems have odd certificates among their many. One that cannot be parsed is left out.
    roots.add_parsable_certificates(found.certs);
    let unread = unread(variables, &found.errors, roots.is_empty());
    if !roots.is_empty() {
        return Ok((roots, unread.map(|error| error.to_string())));
    }
    match unread {
        _ if !fallback.is_empty() => {
            roots.extend(fallback.iter().cloned());
            Ok((roots, unread.map(|error| format!("{error}; the authorities of Mozilla are trusted"))))
        }
        Some(error) => Err(error),
        None => Err(Error::Start(
            "this system has no certificates of authorities; set OTEL_EXPORTER_OTLP_CERTIFICATE, \
             or use the Cargo feature `otlp-tls-webpki-roots`"
                .into(),
        )),
    }
}

/// The first variable that names something that cannot be read, or has nothing in it if nothing was found.
fn unread(variables: &[Variable], errors: &[rustls_native_certs::Error], is_empty: bool) -> Option<Error> {
    let problems = variables.iter().filter_map(|variable| {
        let why = errors.iter().find_map(|error| match &error.kind {
            // Its text names the path, which may be a secret.
            ErrorKind::Io { inner, path } if names(variable, path) => Some(inner.to_string()),
            _ => None,
        });
        let why = why.or_else(|| is_empty.then(|| "there is no certificate in it".to_owned()))?;
        Some((variable, why))
    });
    let (variable, why) = problems.into_iter().next()?;
    let advice = match variable.value.as_str() {
        "" => "; unset it",
        _ if variable.is_quoted() => &*format!("; {QUOTED}"),
        _ => "",
    };
    let problem = format!("no authority could be read from it: {why}{advice}");
    Some(Error::setting(&variable.name, &shown_path(&variable.value), problem))
}

fn names(variable: &Variable, path: &Path) -> bool {
    Path::new(&variable.value) == path || env::split_paths(&variable.value).any(|named| named == path)
}

#[cfg(test)]
mod tests {
    use rustls_native_certs::load_certs_from_paths;

    use super::*;

    const FILE: &str = "SSL_CERT_FILE";
    const DIRECTORY: &str = "SSL_CERT_DIR";

    fn mozilla() -> TrustAnchor<'static> {
        TrustAnchor {
            subject: [1].as_slice().into(),
            subject_public_key_info: [2].as_slice().into(),
            name_constraints: None,
        }
    }

    fn error(found: CertificateResult, variables: &[Variable]) -> String {
        choose(found, variables, &[]).err().unwrap().to_string()
    }

    #[test]
    fn a_variable_that_names_no_file_is_named_with_it() {
        for (name, path) in [(FILE, "/nowhere/at/all.pem"), (DIRECTORY, "/nowhere/at/all")] {
            let read = || match name {
                FILE => load_certs_from_paths(Some(path.as_ref()), None),
                _ => load_certs_from_paths(None, Some(path.as_ref())),
            };
            let variables = [Variable::new(name, path)];
            let expected =
                format!("{name}={path}: no authority could be read from it: No such file or directory");
            let error = error(read(), &variables);
            assert!(error.starts_with(&expected), "{error}");
            let (roots, warning) = choose(read(), &variables, &[mozilla()]).unwrap();
            assert_eq!(roots.len(), 1);
            let warning = warning.unwrap();
            assert!(warning.starts_with(&expected) && warning.ends_with("Mozilla are trusted"), "{warning}");
        }
    }

    #[test]
    fn each_of_several_directories_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let value = format!("{}:/nowhere", directory.path().display());
        let found = load_certs_from_paths(None, Some("/nowhere".as_ref()));
        let error = error(found, &[Variable::new(DIRECTORY, &value)]);
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots.pem");
        for text in ["", "no certificate", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, text).unwrap();
            let error = error(
                load_certs_from_paths(Some(&path), None),
                &[Variable::new(FILE, path.to_str().unwrap())],
            );
            let expected = format!(
                "{FILE}={}: no authority could be read from it: there is no certificate in it",
                path.display()
            );
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn empty_quoted_and_secret_values_have_their_words() {
        let error = |value: &str| {
            error(load_certs_from_paths(Some(value.as_ref()), None), &[Variable::new(FILE, value)])
        };
        assert!(error("").starts_with("SSL_CERT_FILE=: no authority") && error("").ends_with("; unset it"));
        assert!(error("'/a.pem'").ends_with("; the value stands in quotes; remove them"));
        let secret = error("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s3cret");
        assert!(secret.starts_with("SSL_CERT_FILE=[hidden]: ") && !secret.contains("s3cret"), "{secret}");
    }

    #[test]
    fn without_a_variable_the_feature_is_named() {
        let error = error(CertificateResult::default(), &[]);
        assert!(error.contains("`otlp-tls-webpki-roots`"), "{error}");
        assert!(
            choose(CertificateResult::default(), &[], &[mozilla()])
                .is_ok_and(|(_, warning)| warning.is_none())
        );
    }
}
