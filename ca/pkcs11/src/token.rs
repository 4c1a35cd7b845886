//! One token: how it is found, and how sessions with it are opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use crate::TokenFault;
use crate::module::{Module, reason};
use crate::session::Held;

/// After a failure nobody tries for this long: a dead network module takes its time for each attempt.
const REST: Duration = Duration::from_secs(1);
/// Longest PIN that is taken.
const LONGEST: usize = 255;

/// A token's PIN. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct Pin(Arc<AuthPin>);

impl Pin {
    /// Takes it. A line end at its end is cut off. `None` if it is empty, overlong or not UTF-8.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        let text = std::str::from_utf8(&bytes).ok()?;
        let text = text.trim_end_matches(['\n', '\r']);
        match text.len() {
            1..=LONGEST => Some(Self(Arc::new(AuthPin::new(text.into())))),
            _ => None,
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

/// How a token is reached. What a key directory has on record need not be said again.
#[derive(Debug, Clone)]
pub struct TokenAccess {
    /// The vendor's library; `None`: as recorded.
    pub module: Option<PathBuf>,
    /// The token's label; `None`: as recorded.
    pub label: Option<String>,
    /// The PIN of its user; `None` for a token that asks for it itself.
    pub pin: Option<Pin>,
}

/// A token of a module, by its label.
pub(crate) struct Token {
    module: PathBuf,
    label: String,
    pin: Option<Pin>,
    /// Set for good once it refused the PIN.
    refused: AtomicBool,
    /// One attempt at a time, and what became of the last one that failed.
    dialling: Mutex<Option<(Instant, TokenFault)>>,
}

impl Token {
    pub(crate) fn new(module: PathBuf, label: String, pin: Option<Pin>) -> Self {
        Self {
            module,
            label,
            pin,
            refused: AtomicBool::new(false),
            dialling: Mutex::new(None),
        }
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn gone(&self, reason: impl Into<String>) -> TokenFault {
        TokenFault::Gone {
            label: self.label.clone(),
            reason: reason.into(),
        }
    }

    /// Opens a session. If the token cannot be reached, the module is started anew, once.
    #[allow(
        clippy::disallowed_methods,
        reason = "the library waits in real time, and no simulation has tokens"
    )]
    pub(crate) fn connect(&self) -> Result<Held, TokenFault> {
        let mut last = self.dialling();
        if self.refused.load(Ordering::Acquire) {
            return Err(TokenFault::WrongPin {
                label: self.label.clone(),
            });
        }
        if let Some((at, fault)) = &*last
            && at.elapsed() < REST
        {
            return Err(fault.clone());
        }
        let connected = self.dial();
        *last = match &connected {
            Ok(_) => None,
            Err(fault) => Some((Instant::now(), fault.clone())),
        };
        connected
    }

    /// As [`connect`](Self::connect), after the module was started anew: a new session was of no use.
    pub(crate) fn reconnect(&self) -> Result<Held, TokenFault> {
        {
            let _one = self.dialling();
            let module = Module::load(&self.module)?;
            self.restart(&module)?;
        }
        self.connect()
    }

    fn restart(&self, module: &Module) -> Result<(), TokenFault> {
        module.restart().map_err(|error| self.gone(reason(&error)))
    }

    pub(crate) fn dialling(&self) -> MutexGuard<'_, Option<(Instant, TokenFault)>> {
        self.dialling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dial(&self) -> Result<Held, TokenFault> {
        let module = Module::load(&self.module)?;
        match self.open(&module) {
            Err(TokenFault::NoToken { .. } | TokenFault::Gone { .. }) => {
                self.restart(&module)?;
                self.open(&module)
            }
            other => other,
        }
    }

    fn open(&self, module: &Arc<Module>) -> Result<Held, TokenFault> {
        let starts = module.starts();
        let session = module.enter(|context| {
            let slot = self.find(context)?;
            let session = context
                .open_rw_session_no_drop(slot)
                .map_err(|error| self.gone(reason(&error)))?;
            match self.log_in(context, slot, &session) {
                Ok(()) => Ok((slot, session)),
                Err(fault) => {
                    let _ = session.close();
                    Err(fault)
                }
            }
        });
        let (slot, session) = session?;
        Ok(Held::new(module.clone(), starts, slot, session))
    }

    fn find(&self, context: &Pkcs11) -> Result<Slot, TokenFault> {
        let slots = context
            .get_slots_with_token()
            .map_err(|error| self.gone(reason(&error)))?;
        let mut found = Vec::new();
        let mut ours = Vec::new();
        for slot in slots {
            // One that was pulled out a moment ago is not there.
            let Ok(info) = context.get_token_info(slot) else {
                continue;
            };
            if !info.token_initialized() {
                continue;
            }
            match info.label() == self.label {
                true => ours.push(slot),
                false => found.push(format!("'{}'", info.label())),
            }
        }
        match ours.as_slice() {
            [slot] => Ok(*slot),
            [] => Err(TokenFault::NoToken {
                label: self.label.clone(),
                module: self.module.clone(),
                found: match found.is_empty() {
                    true => "no token at all".to_owned(),
                    false => found.join(", "),
                },
            }),
            several => Err(TokenFault::Ambiguous {
                label: self.label.clone(),
                module: self.module.clone(),
                count: several.len(),
            }),
        }
    }

    /// Logs in, unless another session has. Tokens count wrong PINs: the last attempt is left to people.
    fn log_in(&self, context: &Pkcs11, slot: Slot, session: &Session) -> Result<(), TokenFault> {
        let label = || self.label.clone();
        let info = context
            .get_token_info(slot)
            .map_err(|error| self.gone(reason(&error)))?;
        if !info.login_required() {
            return Ok(());
        }
        if info.user_pin_locked() {
            return Err(TokenFault::PinLocked { label: label() });
        }
        if info.user_pin_final_try() {
            return Err(TokenFault::LastAttempt { label: label() });
        }
        if self.pin.is_none() && !info.protected_authentication_path() {
            return Err(TokenFault::NoPin { label: label() });
        }
        let pin = self.pin.as_ref().map(|pin| &*pin.0);
        match session.login(UserType::User, pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
                _,
            )) => {
                self.refused.store(true, Ordering::Release);
                Err(TokenFault::WrongPin { label: label() })
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                Err(TokenFault::PinLocked { label: label() })
            }
            Err(error @ Error::Pkcs11(RvError::UserPinNotInitialized | RvError::PinExpired, _)) => {
                Err(TokenFault::Refused {
                    label: label(),
                    what: "let its user in",
                    reason: reason(&error),
                })
            }
            Err(error) => Err(self.gone(reason(&error))),
        }
    }
}
