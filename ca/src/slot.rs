//! One authority in its place: a root or an issuing CA, and how far it is in its life.

use std::fmt;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_certs::RootPin;

use crate::{Error, KeyId, when};

/// Which kind of authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// In the trust bundle; signs issuing CAs only.
    Root,
    /// Signed by a root; signs leaves.
    Issuing,
}

impl Tier {
    /// The word that slot names begin with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
        }
    }
}

/// Where in its life an authority is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Made, and (a root) already in the bundle, but nothing is signed with it yet.
    Prepared,
    /// The one that signs.
    Active,
    /// Signs no more; what it signed is still good.
    Old,
    /// Gone: out of the bundle, key destroyed. Kept for the record.
    Removed,
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
            Self::Removed => "removed",
        })
    }
}

/// One authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name, such as `issuing-2`.
    pub id: String,
    /// Where in its life it is.
    pub state: SlotState,
    /// Since when.
    #[serde(with = "when")]
    pub since: SystemTime,
    /// The root that signed it; of an issuing CA only.
    pub issuer: Option<String>,
    /// Of a root: when an issuing CA under it last stopped signing. Leaves below it end a leaf's life later.
    #[serde(with = "when::option", default)]
    pub signed_until: Option<SystemTime>,
    /// The name of its private key. `None`: the key is elsewhere, as that of an offline root is.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// Whether its key may be in other hands: nobody is to build on it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tainted: bool,
    /// Begin of its certificate.
    #[serde(with = "when")]
    pub not_before: SystemTime,
    /// End of its certificate.
    #[serde(with = "when")]
    pub not_after: SystemTime,
    /// Its certificate.
    #[serde(with = "base64_der")]
    pub certificate: CertificateDer<'static>,
    /// Of a root: itself, signed by the root before it, for those who know only that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross: Option<Cross>,
    /// Of an issuing CA whose root is somebody else's: the authorities between the two, lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "base64_ders")]
    pub above: Vec<CertificateDer<'static>>,
}

/// A root's certificate from another root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cross {
    /// The root that signed it.
    pub by: String,
    /// The certificate.
    #[serde(with = "base64_der")]
    pub certificate: CertificateDer<'static>,
}

impl Slot {
    /// The pin of its key.
    ///
    /// # Errors
    /// [`Error::Journal`] if its certificate cannot be read, which a loaded authority has ruled out.
    pub fn pin(&self) -> Result<RootPin, Error> {
        RootPin::of(&self.certificate).map_err(|e| Error::Journal {
            reason: format!("the certificate of {}: {e}", self.id),
        })
    }

    /// Whether relying parties still need it.
    pub fn is_live(&self) -> bool {
        self.state != SlotState::Removed
    }
}

/// Removed slots of one kind that are kept for the record.
pub(crate) const KEPT_REMOVED: usize = 8;

/// Forgets all removed slots but the newest few.
pub(crate) fn forget_removed<S>(slots: &mut Vec<S>, is_live: impl Fn(&S) -> bool) {
    let removed = slots.iter().filter(|slot| !is_live(slot)).count();
    let mut excess = removed.saturating_sub(KEPT_REMOVED);
    slots.retain(|slot| {
        let forget = excess > 0 && !is_live(slot);
        excess -= usize::from(forget);
        !forget
    });
}

fn encode(der: &CertificateDer<'static>) -> String {
    STANDARD.encode(der)
}

fn decode<E: serde::de::Error>(text: &str) -> Result<CertificateDer<'static>, E> {
    STANDARD
        .decode(text)
        .map(CertificateDer::from)
        .map_err(E::custom)
}

mod base64_der {
    use super::{CertificateDer, Deserialize, Deserializer, Serializer, decode, encode};

    pub(super) fn serialize<S: Serializer>(
        der: &CertificateDer<'static>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(der))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<CertificateDer<'static>, D::Error> {
        decode(&String::deserialize(deserializer)?)
    }
}

pub(crate) mod base64_ders {
    use super::{CertificateDer, Deserialize, Deserializer, Serializer, decode, encode};

    pub(crate) fn serialize<S: Serializer>(
        ders: &[CertificateDer<'static>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ders.iter().map(encode))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<CertificateDer<'static>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| decode(text)).collect()
    }
}
