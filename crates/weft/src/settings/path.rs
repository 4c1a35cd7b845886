//! Settings of the paths to peers.

use std::str::FromStr;

use clap::ValueEnum;
use weft_transport::{KeyExchange, Profile};

/// Kind of network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileName {
    /// Whatever the path shows
    Auto,
    /// A data centre: every loss is congestion, nothing is sent twice
    Dc,
    /// Between regions: large windows, more patience with silence
    Wan,
    /// A path that loses: small messages are sent twice from the first packet on
    Lossy,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Auto => Self::auto(),
            ProfileName::Dc => Self::dc(),
            ProfileName::Wan => Self::wan(),
            ProfileName::Lossy => Self::lossy(),
        }
    }
}

/// The profile of one service: `SERVICE[.NAMESPACE]=PROFILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerProfileSpec {
    pub(crate) service: String,
    pub(crate) profile: ProfileName,
}

impl FromStr for PeerProfileSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, name) = text
            .split_once('=')
            .ok_or("expected SERVICE=PROFILE, such as ledger=lossy")?;
        if service.is_empty() {
            return Err("no service is named before '='".to_owned());
        }
        let profile = ProfileName::from_str(name, false).map_err(|_| {
            let known = Profile::NAMES.join(", ");
            format!("'{name}' is not a profile: {known}")
        })?;
        Ok(Self {
            service: service.to_owned(),
            profile,
        })
    }
}

/// What every role asks of a connection.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WireSettings {
    /// Which key exchanges of TLS are taken. X25519MLKEM768 comes first in any case: what is recorded today stays
    /// secret when quantum computers come
    #[arg(
        long,
        env = "WEFT_KEY_EXCHANGE",
        value_name = "WHICH",
        value_enum,
        default_value = "any"
    )]
    key_exchange: KeyExchangeName,

    /// Whether HTTP/2 over TCP takes over where UDP does not pass: answered on the port of the same number, and dialled
    /// when QUIC brings no answer. Where it is off, that port of TCP stays free
    #[arg(
        long,
        env = "WEFT_TCP_FALLBACK",
        value_name = "on|off",
        value_enum,
        default_value = "on"
    )]
    tcp_fallback: Switch,
}

impl WireSettings {
    pub(crate) fn key_exchange(&self) -> KeyExchange {
        self.key_exchange.into()
    }

    pub(crate) fn tcp_fallback(&self) -> bool {
        matches!(self.tcp_fallback, Switch::On)
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Which key exchanges are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyExchangeName {
    /// X25519MLKEM768 first, X25519 and the NIST curves too
    Any,
    /// X25519MLKEM768 only: a peer without it is refused
    Hybrid,
}

impl From<KeyExchangeName> for KeyExchange {
    fn from(name: KeyExchangeName) -> Self {
        match name {
            KeyExchangeName::Any => Self::Preferred,
            KeyExchangeName::Hybrid => Self::Required,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_profile_is_a_service_and_a_name() {
        let parsed: PeerProfileSpec = "ledger.team=lossy".parse().unwrap();
        assert_eq!(
            (parsed.service.as_str(), parsed.profile),
            ("ledger.team", ProfileName::Lossy)
        );
        for (text, said) in [
            ("ledger", "SERVICE=PROFILE"),
            ("=dc", "no service"),
            ("ledger=lan", "auto, dc, wan, lossy"),
        ] {
            let error = text.parse::<PeerProfileSpec>().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn every_name_leads_to_the_profile_of_that_name() {
        for name in ProfileName::value_variants() {
            let shown = name.to_possible_value().expect("none is hidden");
            assert_eq!(Profile::from(*name).name, shown.get_name());
        }
    }
}
