//! Elliptic curves as PKCS#11 has them, and as X.509 does.

use aws_lc_rs::digest::{self, SHA256, SHA384};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use weft_ca::KeyType;

/// A curve that tokens and peers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// `None` for Ed25519: few tokens have it.
    pub(crate) fn of(kind: KeyType) -> Option<Self> {
        match kind {
            KeyType::P256 => Some(Self::P256),
            KeyType::P384 => Some(Self::P384),
            KeyType::Ed25519 => None,
        }
    }

    /// `CKA_EC_PARAMS`: the curve's object identifier (RFC 5480 §2.1.1.1).
    pub(crate) fn params(self) -> Vec<u8> {
        let oid: &[u64] = match self {
            Self::P256 => &[1, 2, 840, 10045, 3, 1, 7],
            Self::P384 => &[1, 3, 132, 0, 34],
        };
        let oid = yasna::models::ObjectIdentifier::from_slice(oid);
        yasna::construct_der(|writer| writer.write_oid(&oid))
    }

    pub(crate) fn of_params(params: &[u8]) -> Option<Self> {
        [Self::P256, Self::P384]
            .into_iter()
            .find(|curve| curve.params() == params)
    }

    /// Bytes of a coordinate.
    fn width(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    /// `CKA_EC_POINT` is an octet string around the uncompressed point; some modules leave the string away.
    pub(crate) fn point(self, attribute: &[u8]) -> Option<Vec<u8>> {
        let whole = |point: &[u8]| point.len() == 1 + 2 * self.width() && point[0] == 4;
        if whole(attribute) {
            return Some(attribute.to_vec());
        }
        let inner = yasna::parse_der(attribute, |reader| reader.read_bytes()).ok()?;
        whole(&inner).then_some(inner)
    }

    /// What `CKM_ECDSA` signs.
    pub(crate) fn digest(self, message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::P256 => &SHA256,
            Self::P384 => &SHA384,
        };
        digest::digest(algorithm, message).as_ref().to_vec()
    }

    /// The token's signature, r and s side by side, as X.509 has it (RFC 3279 §2.2.3). `None` if it is not one of this
    /// key over this message: what a faulty token gives does not go out.
    pub(crate) fn checked(self, point: &[u8], message: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
        let algorithm = match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
        };
        UnparsedPublicKey::new(algorithm, point)
            .verify(message, signature)
            .ok()?;
        let (r, s) = signature.split_at_checked(self.width())?;
        Some(yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_bigint_bytes(r, true);
                writer.next().write_bigint_bytes(s, true);
            });
        }))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1,
        ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    };

    use super::*;

    #[test]
    fn a_tokens_signature_becomes_one_that_x509_knows_and_a_wrong_one_nothing() {
        for (curve, signing, asn1) in [
            (
                Curve::P256,
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                &ECDSA_P256_SHA256_ASN1,
            ),
            (
                Curve::P384,
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                &ECDSA_P384_SHA384_ASN1,
            ),
        ] {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let point = pair.public_key().as_ref();
            // Many, so that numbers with a high bit and with leading zeros are among them.
            for message in (0_u16..600).map(u16::to_be_bytes) {
                let fixed = pair.sign(&SystemRandom::new(), &message).unwrap();
                let der = curve.checked(point, &message, fixed.as_ref()).unwrap();
                let key = UnparsedPublicKey::new(asn1, point);
                key.verify(&message, &der).unwrap();
                assert_eq!(curve.checked(point, b"another", fixed.as_ref()), None);
            }
            assert_eq!(curve.checked(point, b"x", &[0; 7]), None);
        }
    }

    #[test]
    fn a_point_is_read_with_and_without_its_octet_string() {
        let bare = [&[4][..], &[7; 64]].concat();
        let wrapped = [&[0x04, 65][..], &bare].concat();
        for form in [&bare, &wrapped] {
            assert_eq!(Curve::P256.point(form).as_ref(), Some(&bare));
            assert_eq!(Curve::P384.point(form), None);
        }
        let compressed = [&[2][..], &[7; 32]].concat();
        for wrong in [&[][..], &[4], &compressed, &wrapped[..60]] {
            assert_eq!(Curve::P256.point(wrong), None);
        }
    }

    #[test]
    fn curves_are_told_by_their_parameters() {
        for curve in [Curve::P256, Curve::P384] {
            assert_eq!(Curve::of_params(&curve.params()), Some(curve));
        }
        assert_eq!(Curve::of_params(&[6, 5, 0x2b, 0x81, 4, 0, 0x0a]), None);
        assert_eq!(
            Curve::P256.params(),
            [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]
        );
    }
}
