//! What a control node does: makes tokens for one identity.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use weft_certs::{JwtKey, SpiffeId, jwt_signing_input, jwt_with_signature};
use weft_env::BoxFuture;
use weft_workload::{NoToken, Token, TokenSource};

pub struct Signer {
    id: SpiffeId,
    pair: Mutex<EcdsaKeyPair>,
    /// What it answers instead of a token.
    refuses: Mutex<Option<NoToken>>,
}

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

impl Signer {
    pub fn new(id: &str) -> Self {
        Self {
            id: SpiffeId::parse(id).unwrap(),
            pair: Mutex::new(pair()),
            refuses: Mutex::default(),
        }
    }

    pub fn key(&self) -> JwtKey {
        JwtKey::p256(self.pair.lock().unwrap().public_key().as_ref()).unwrap()
    }

    /// Another key from now on.
    pub fn rotate(&self) {
        *self.pair.lock().unwrap() = pair();
    }

    pub fn refuse(&self, with: NoToken) {
        *self.refuses.lock().unwrap() = Some(with);
    }

    pub fn sign(&self, audience: &[String], expires: SystemTime) -> String {
        let kid = self.key().kid().to_owned();
        let input = jwt_signing_input(&kid, &self.id, audience, SystemTime::now(), expires);
        let pair = self.pair.lock().unwrap();
        let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        jwt_with_signature(&input, signature.as_ref().try_into().unwrap())
    }
}

impl TokenSource for Signer {
    fn token(&self, audience: Vec<String>) -> BoxFuture<'_, Result<Token, NoToken>> {
        Box::pin(async move {
            if let Some(no) = self.refuses.lock().unwrap().clone() {
                return Err(no);
            }
            let expires = SystemTime::now() + Duration::from_secs(300);
            Ok(Token {
                token: self.sign(&audience, expires).into(),
                expires,
            })
        })
    }
}
