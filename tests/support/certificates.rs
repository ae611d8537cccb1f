//! Certificates for the tests of TLS, in files.

#![allow(dead_code, reason = "each test program has use for a part of it")]

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// PEM files of two authorities, and certificates for localhost: a valid one, an expired one, and one of the other
/// authority.
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(crate) fn new() -> Self {
        let files = Certificates(tempfile::tempdir().unwrap());
        let authority = issuer("authority");
        let other = issuer("other");
        files.write("authority.pem", &authority.pem());
        files.write("other.pem", &other.pem());
        files.issue("server", &authority, 2099);
        files.issue("client", &authority, 2099);
        files.issue("expired", &authority, 2001);
        files.issue("foreign", &other, 2099);
        files.self_sign("self", IsCa::NoCa);
        files.self_sign("selfca", IsCa::Ca(BasicConstraints::Unconstrained));
        files
    }

    fn issue(&self, name: &str, issuer: &CertifiedIssuer<'_, KeyPair>, until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut certificate =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into(), "collector.test".into()])
                .unwrap();
        certificate.not_before = rcgen::date_time_ymd(2000, 1, 1);
        certificate.not_after = rcgen::date_time_ymd(until, 1, 1);
        self.write(&format!("{name}.pem"), &certificate.signed_by(&key, issuer).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn self_sign(&self, name: &str, is_ca: IsCa) {
        let key = KeyPair::generate().unwrap();
        let mut certificate = CertificateParams::new(vec!["localhost".into()]).unwrap();
        certificate.is_ca = is_ca;
        self.write(&format!("{name}.pem"), &certificate.self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// Returns the TLS settings of a Collector that requires certificates of clients.
    pub(crate) fn collector(&self) -> String {
        format!(
            "tls: {{cert_file: {}, key_file: {}, client_ca_file: {}}}",
            self.path("server.pem"),
            self.path("server.key"),
            self.path("authority.pem"),
        )
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }

    /// Replaces one file by a copy of another.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(rcgen::DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}
