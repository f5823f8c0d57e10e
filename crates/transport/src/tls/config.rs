//! rustls configurations: TLS 1.3 only, mutual, no resumption, HTTP/2 by ALPN.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, SupportedCipherSuite};

/// The ALPN name of HTTP/2.
pub const HTTP2: &[u8] = b"h2";

/// A client's configuration; `Err` is a sentence about the PEM text that cannot be used.
pub fn client(ca: &str, chain: &str, key: &str) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(certificates(chain)?, private_key(key)?)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// A server's configuration, which wants a client certificate that `ca` has issued.
pub fn server(ca: &str, chain: &str, key: &str) -> Result<Arc<rustls::ServerConfig>, String> {
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(chain)?, private_key(key)?)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.ignore_client_order = true;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// aws-lc-rs with the fastest cipher of this machine first.
fn provider() -> Arc<CryptoProvider> {
    let aes: [SupportedCipherSuite; 2] = [
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS13_AES_256_GCM_SHA384,
    ];
    let chacha = suite::TLS13_CHACHA20_POLY1305_SHA256;
    let cipher_suites = if has_aes() {
        vec![aes[0], aes[1], chacha]
    } else {
        vec![chacha, aes[0], aes[1]]
    };
    Arc::new(CryptoProvider {
        cipher_suites,
        ..aws_lc_rs::default_provider()
    })
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem).map_err(|error| format!("CA: {error}"))? {
        store
            .add(certificate)
            .map_err(|error| format!("CA: {error}"))?;
    }
    Ok(store)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("certificate: {error}"))?;
    if chain.is_empty() {
        return Err("the PEM text holds no certificate".to_owned());
    }
    Ok(chain)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| format!("private key: {error}"))
}
