//! Roots of another provider of identities in the mesh's own trust domain, from the file of `--trust-bundle`: the mesh
//! trusts them beside its own (`docs/adr/0013-identity-from-elsewhere.md`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_ca::audit::Event;
use weft_certs::{CertificateDer, RootPin, TrustBundle, TrustDomain, certificate_list};
use weft_env::Env;

use crate::error::ControlError;
use crate::issue::{Along, CaService};

/// A bundle has a root or a few.
const MAX_FILE: usize = 1024 * 1024;
/// More is not a provider's bundle, and every sidecar holds each of them.
const MAX_ROOTS: usize = 32;
/// How often the file is looked at: providers replace their roots by the day, and announce them long before.
const LOOK: Duration = Duration::from_secs(1);

/// Brings the authority to what the file says; without a file, to its own roots alone.
///
/// # Errors
/// [`ControlError::TrustBundle`] if the file cannot be used, or what the store says.
pub(crate) async fn follow_once(
    env: &Env,
    ca: &CaService,
    file: Option<&Path>,
) -> Result<(), ControlError> {
    let roots = match file {
        Some(file) => load(env, file, ca.config().trust_domain.clone()).await?,
        None => Vec::new(),
    };
    if roots == ca.authority().journal().foreign() {
        return Ok(());
    }
    let pins: Vec<String> = roots.iter().filter_map(pin).collect();
    let count = roots.len();
    let subject = file.map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    let event = Event::new("trust.foreign", &subject, "control").with("roots", pins.join(","));
    ca.step(
        Box::new(move |authority, _, _, _| Ok(authority.journal().with_foreign(roots))),
        move |_| Along::event(event),
    )
    .await?;
    tracing::info!(
        file = subject,
        roots = count,
        "roots of another provider are trusted"
    );
    Ok(())
}

fn pin(root: &CertificateDer<'static>) -> Option<String> {
    RootPin::of(root).ok().map(|pin| pin.to_string())
}

/// Follows the file until `stop`. What it said last holds while it cannot be used.
pub(crate) async fn keep(env: Env, ca: CaService, file: PathBuf, stop: CancellationToken) {
    let mut said = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        let reason = follow_once(&env, &ca, Some(&file)).await.err();
        let reason = reason.map(|error| error.to_string());
        if let Some(reason) = &reason
            && said.as_ref() != Some(reason)
        {
            tracing::error!(reason, "what it said before stays in force");
        }
        said = reason;
    }
}

async fn load(
    env: &Env,
    file: &Path,
    domain: TrustDomain,
) -> Result<Vec<CertificateDer<'static>>, ControlError> {
    let path = file.to_owned();
    let read = env.disk(move |disk| disk.read(&path, MAX_FILE)).await;
    let roots = match read {
        Ok(bytes) => roots(&bytes, domain).map_err(|why| format!("{}: {why}", file.display())),
        Err(error) => Err(error.to_string()),
    };
    roots.map_err(|reason| ControlError::TrustBundle { reason })
}

/// The roots of a bundle as providers write it: PEM, or a SPIFFE JWK Set.
fn roots(bytes: &[u8], domain: TrustDomain) -> Result<Vec<CertificateDer<'static>>, String> {
    let roots = match bytes.trim_ascii_start().first() {
        Some(b'{') => {
            let jwks: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            let bundle = TrustBundle::from_jwks(domain, &jwks);
            bundle.map_err(|error| error.to_string())?.roots
        }
        _ => certificate_list(bytes).map_err(|error| error.to_string())?,
    };
    if roots.is_empty() {
        return Err("there is no root in it".to_owned());
    }
    if roots.len() > MAX_ROOTS {
        return Err(format!("it has more than {MAX_ROOTS} roots"));
    }
    // Anything else in the place of a certificate would be a root that is not there.
    for root in &roots {
        RootPin::of(root).map_err(|_| "a block in it is no certificate".to_owned())?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bundle_is_pem_or_a_jwk_set_with_at_least_one_root() {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let (_, ca) = crate::testing::authority(&env, dir.path()).await;
        let bundle = ca.authority().bundle();
        let domain = || bundle.trust_domain.clone();
        let pem = weft_certs::to_pem(&bundle.roots[0]);
        assert_eq!(roots(pem.as_bytes(), domain()), Ok(bundle.roots.clone()));
        let jwks = format!("\n {}", bundle.to_jwks());
        assert_eq!(roots(jwks.as_bytes(), domain()), Ok(bundle.roots.clone()));
        let crowd = pem.repeat(MAX_ROOTS + 1);
        for (bad, word) in [
            ("", ""),
            ("{\"keys\": []}", "no root"),
            ("{\"keys\": [}", "column"),
            (crowd.as_str(), "more than 32"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "no certificate",
            ),
        ] {
            let reason = roots(bad.as_bytes(), domain()).unwrap_err();
            assert!(reason.contains(word), "{bad:?}: {reason}");
        }
    }

    #[tokio::test]
    async fn the_roots_of_the_file_are_trusted_for_as_long_as_it_names_them() {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let (_, ca) = crate::testing::authority(&env, dir.path()).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let (_, other) = crate::testing::authority(&env, elsewhere.path()).await;
        let (own, foreign) = (ca.authority().bundle(), other.authority().bundle());
        let file = dir.path().join("bundle.pem");
        std::fs::write(&file, weft_certs::to_pem(&foreign.roots[0])).unwrap();

        follow_once(&env, &ca, Some(&file)).await.unwrap();
        let both = [&own.roots[..], &foreign.roots[..]].concat();
        assert_eq!(ca.authority().bundle().roots, both);
        let edition = ca.authority().bundle().sequence;
        follow_once(&env, &ca, Some(&file)).await.unwrap();
        assert_eq!(ca.authority().bundle().sequence, edition, "nothing changed");

        std::fs::write(&file, "half a file").unwrap();
        let error = follow_once(&env, &ca, Some(&file)).await.unwrap_err();
        assert!(error.to_string().contains("--trust-bundle"), "{error}");
        assert_eq!(ca.authority().bundle().roots, both, "what it said stays");

        follow_once(&env, &ca, None).await.unwrap();
        assert_eq!(ca.authority().bundle().roots, own.roots);
    }
}
