//! What is done in a session: find, make, use and destroy key objects.

use std::sync::Arc;

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::Slot;

use crate::ecdsa::Curve;
use crate::module::{Module, reason};

/// A session that is logged in.
pub(crate) struct Held {
    module: Arc<Module>,
    starts: u64,
    slot: Slot,
    /// `None` once it is closed.
    session: Option<Session>,
    /// The key that was used last, by its `CKA_ID`: an issuing key signs again and again.
    last: Option<(Vec<u8>, ObjectHandle)>,
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The session or the token is gone: worth another try with a new one.
    Lost(String),
    /// The token says no.
    No { what: &'static str, reason: String },
    /// There is no such key.
    Absent,
    /// There is one already.
    Exists,
    /// It would give the key away.
    Loose,
}

/// What a key is, as the token shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Public {
    pub(crate) curve: Curve,
    pub(crate) point: Vec<u8>,
}

fn trouble(what: &'static str) -> impl Fn(Error) -> Trouble {
    move |error| {
        let reason = reason(&error);
        let Error::Pkcs11(code, _) = error else {
            return Trouble::No { what, reason };
        };
        match code {
            RvError::SlotIdInvalid
            | RvError::GeneralError
            | RvError::FunctionFailed
            | RvError::DeviceError
            | RvError::DeviceRemoved
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::OperationActive
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::UserNotLoggedIn
            | RvError::CryptokiNotInitialized
            | RvError::VendorDefined(_) => Trouble::Lost(reason),
            _ => Trouble::No { what, reason },
        }
    }
}

impl Held {
    pub(crate) fn new(module: Arc<Module>, starts: u64, slot: Slot, session: Session) -> Self {
        Self {
            module,
            starts,
            slot,
            session: Some(session),
            last: None,
        }
    }

    /// Whether it is of this start of the library. What is not must not even be closed: its handle may be another's.
    pub(crate) fn is_current(&self) -> bool {
        self.starts == self.module.starts()
    }

    /// Works in the library with this session.
    fn within<T>(&self, work: impl FnOnce(&Session) -> Result<T, Trouble>) -> Result<T, Trouble> {
        self.module.enter(
            |_| match self.session.as_ref().filter(|_| self.is_current()) {
                Some(session) => work(session),
                None => Err(Trouble::Lost("the module was started anew".to_owned())),
            },
        )
    }

    fn objects(&self, id: &[u8], class: ObjectClass) -> Result<Vec<ObjectHandle>, Trouble> {
        let template = [
            Attribute::Token(true),
            Attribute::Class(class),
            Attribute::Id(id.to_vec()),
        ];
        self.within(|session| {
            session
                .find_objects(&template)
                .map_err(trouble("look for a key"))
        })
    }

    /// The private key of this `CKA_ID`, once it is known that it cannot be taken out.
    fn private(&mut self, id: &[u8]) -> Result<ObjectHandle, Trouble> {
        if let Some((known, handle)) = &self.last
            && known == id
        {
            return Ok(*handle);
        }
        let found = self.objects(id, ObjectClass::PRIVATE_KEY)?;
        let handle = *found.first().ok_or(Trouble::Absent)?;
        self.check_kept(handle)?;
        self.last = Some((id.to_vec(), handle));
        Ok(handle)
    }

    fn check_kept(&self, handle: ObjectHandle) -> Result<(), Trouble> {
        let wanted = [AttributeType::Sensitive, AttributeType::Extractable];
        let told = self.within(|session| {
            session
                .get_attributes(handle, &wanted)
                .map_err(trouble("tell how it keeps a key"))
        })?;
        match told.contains(&Attribute::Sensitive(true))
            && told.contains(&Attribute::Extractable(false))
        {
            true => Ok(()),
            false => Err(Trouble::Loose),
        }
    }

    /// The public half of a key whose private half is there.
    pub(crate) fn public(&mut self, id: &[u8]) -> Result<Public, Trouble> {
        self.last = None;
        self.private(id)?;
        let found = self.objects(id, ObjectClass::PUBLIC_KEY)?;
        let handle = *found.first().ok_or(Trouble::Absent)?;
        let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
        let told = self.within(|session| {
            session
                .get_attributes(handle, &wanted)
                .map_err(trouble("show a public key"))
        })?;
        let (mut params, mut point) = (Vec::new(), Vec::new());
        for attribute in told {
            match attribute {
                Attribute::EcParams(bytes) => params = bytes,
                Attribute::EcPoint(bytes) => point = bytes,
                _ => {}
            }
        }
        let unknown = || Trouble::No {
            what: "show a public key",
            reason: "it is not a point of P-256 or P-384".to_owned(),
        };
        let curve = Curve::of_params(&params).ok_or_else(unknown)?;
        let point = curve.point(&point).ok_or_else(unknown)?;
        Ok(Public { curve, point })
    }

    /// Makes a pair that cannot be taken out.
    pub(crate) fn generate(
        &mut self,
        id: &[u8],
        label: &str,
        curve: Curve,
    ) -> Result<Public, Trouble> {
        if !self.objects(id, ObjectClass::PRIVATE_KEY)?.is_empty() {
            return Err(Trouble::Exists);
        }
        let name = [
            Attribute::Token(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.to_vec()),
        ];
        let public = [
            &name[..],
            &[
                Attribute::Private(false),
                Attribute::Verify(true),
                Attribute::EcParams(curve.params()),
            ],
        ]
        .concat();
        let private = [
            &name[..],
            &[
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                // To sign and for nothing else.
                Attribute::Sign(true),
                Attribute::Decrypt(false),
                Attribute::Unwrap(false),
            ],
        ]
        .concat();
        self.within(|session| {
            session
                .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
                .map_err(trouble("make a key"))
        })?;
        match self.public(id) {
            Err(Trouble::Loose) => {
                self.destroy(id)?;
                Err(Trouble::Loose)
            }
            other => other,
        }
    }

    /// `CKM_ECDSA` over a digest: r and s side by side.
    pub(crate) fn sign(&mut self, id: &[u8], digest: &[u8]) -> Result<Vec<u8>, Trouble> {
        let key = self.private(id)?;
        let signed = self.within(|session| {
            session
                .sign(&Mechanism::Ecdsa, key, digest)
                .map_err(trouble("sign"))
        });
        if signed.is_err() {
            self.last = None;
        }
        signed
    }

    /// Destroys both halves; [`Trouble::Absent`] if there is neither.
    pub(crate) fn destroy(&mut self, id: &[u8]) -> Result<(), Trouble> {
        self.last = None;
        let mut any = false;
        // The public half last: if this is cut off, what is left is found again.
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            for handle in self.objects(id, class)? {
                self.within(|session| {
                    session
                        .destroy_object(handle)
                        .map_err(trouble("destroy a key"))
                })?;
                any = true;
            }
        }
        match any {
            true => Ok(()),
            false => Err(Trouble::Absent),
        }
    }

    /// The `CKA_ID` of every key that begins so.
    pub(crate) fn ids(&mut self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Trouble> {
        let mut ids = Vec::new();
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            let template = [Attribute::Token(true), Attribute::Class(class)];
            let told = self.within(|session| {
                let list = || {
                    let found = session.find_objects(&template)?;
                    let id = |handle| session.get_attributes(handle, &[AttributeType::Id]);
                    found.into_iter().map(id).collect::<Result<Vec<_>, _>>()
                };
                list().map_err(trouble("list its keys"))
            })?;
            for attribute in told.into_iter().flatten() {
                if let Attribute::Id(id) = attribute
                    && id.starts_with(prefix)
                    && !ids.contains(&id)
                {
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    }

    /// Whether the token is still in its slot: a key that is not found in one that was pulled out is not gone.
    pub(crate) fn is_there(&self, label: &str) -> bool {
        self.is_current()
            && self.module.enter(|context| {
                context
                    .get_token_info(self.slot)
                    .is_ok_and(|info| info.label() == label)
            })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let session = self.session.take();
        self.module.enter(|_| {
            // The library forgets those of an earlier start by itself.
            if let Some(session) = session.filter(|_| self.is_current()) {
                let _ = session.close();
            }
        });
    }
}
