//! `weft init`.

use serde_json::json;
use weft_control::InitConfig;
use weft_env::Env;

use crate::cli::InitArgs;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(args: InitArgs) -> Result<(), Failure> {
    let mut config = InitConfig::new(args.trust_domain.clone());
    config.leaf_ttl = args.leaf_ttl;
    config.max_leaf_ttl = args.max_leaf_ttl;
    config.issuing_ttl = args.issuing_ttl;
    config.root_ttl = args.root_ttl;
    config.key_type = args.key_type;
    config.certificates_per_s = args.certificates_per_second;
    config.keys = super::secret::of_keys(&args.keys).await?;
    let pin = match config.keys.token {
        Some(_) => " --pkcs11-pin-file FILE",
        None => "",
    };
    let made = weft_control::init(&Env::system(), &args.state_dir, &config)
        .await
        .map_err(|error| Failure::because("init", &error))?;
    let value = json!({
        "state_dir": made.state_dir,
        "trust_domain": args.trust_domain.to_string(),
        "pin": made.pin.to_string(),
        "spiffe_id": made.spiffe_id.to_string(),
    });
    // Sidecars take this one to be meant unless they are told.
    let domain = match args.trust_domain.as_str() {
        weft_proxy::DEFAULT_TRUST_DOMAIN => String::new(),
        other => format!(" --trust-domain {other}"),
    };
    output::show(args.output.output, &value, || {
        format!(
            "a mesh of trust domain {} is in {}\npin: {}\n\nnext, here:          weft control --state-dir {}{pin}\nbeside each service: weft sidecar{domain} --pin {} --control THIS_HOST:15008 --token-file FILE\n",
            args.trust_domain,
            made.state_dir.display(),
            made.pin,
            made.state_dir.display(),
            made.pin
        )
    })
}
