//! What goes first on a connection (RFC 9218), and weft's own policy where nobody says. Pure.

use http::header::{HeaderMap, HeaderName};

/// The field's name.
pub(crate) const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// The longest value that is looked at; what a peer says beyond that counts as nothing said.
pub(crate) const LONGEST: usize = 256;
const DEFAULT_URGENCY: u8 = 3;
const LEAST_URGENCY: u8 = 7;
/// What a stream may send in one burst before it counts as more than a small message, and as a bulk.
pub(crate) const SMALL: u64 = 32 * 1024;
pub(crate) const BULK: u64 = 256 * 1024;
/// Steps of our own within one urgency.
const STEPS: i32 = 4;
/// The connection's own streams, before all others.
pub(crate) const FIRST: i32 = (LEAST_URGENCY as i32 + 1) * STEPS;

/// What somebody says of one stream: parameters that are there, known and in range (RFC 9218 §4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// 0 is the most urgent, 7 the least.
    pub(crate) urgency: Option<u8>,
    pub(crate) incremental: Option<bool>,
}

impl Given {
    /// A field value. One that is no dictionary says nothing (RFC 8941 §4.2).
    pub(crate) fn parse(value: &[u8]) -> Self {
        let mut given = Self::default();
        let whole = value.len() <= LONGEST
            && dictionary(value, |key, item| given.take(key, item)).is_some();
        if whole { given } else { Self::default() }
    }

    /// The field of a message, which may come in several lines.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(PRIORITY).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::default(),
            (Some(line), None) => Self::parse(line.as_bytes()),
            (Some(first), Some(second)) => {
                let lines = [first, second].into_iter().chain(lines);
                let lines: Vec<_> = lines.map(http::HeaderValue::as_bytes).collect();
                Self::parse(&lines.join(&b","[..]))
            }
        }
    }

    /// Of two keys that are the same, the last counts (RFC 8941 §4.2.2).
    fn take(&mut self, key: &[u8], item: Item) {
        match (key, item) {
            (b"u", Item::Integer(value)) => {
                let urgency = u8::try_from(value).ok();
                self.urgency = urgency.filter(|urgency| *urgency <= LEAST_URGENCY);
            }
            (b"u", _) => self.urgency = None,
            (b"i", Item::Boolean(value)) => self.incremental = Some(value),
            (b"i", _) => self.incremental = None,
            _ => {}
        }
    }

    /// What a server says in its response goes before what the client said (RFC 9218 §8).
    pub(crate) fn or(self, before: Self) -> Self {
        Self {
            urgency: self.urgency.or(before.urgency),
            incremental: self.incremental.or(before.incremental),
        }
    }

    /// In one byte, for an atomic.
    pub(crate) fn pack(self) -> u8 {
        let incremental = match self.incremental {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        self.urgency.map_or(0, |urgency| urgency + 1) | incremental << 4
    }

    pub(crate) fn unpack(byte: u8) -> Self {
        Self {
            urgency: (byte & 0xf).checked_sub(1),
            incremental: match byte >> 4 {
                0 => None,
                incremental => Some(incremental == 2),
            },
        }
    }

    /// The place in QUIC's order, higher first, of a stream that has sent so much in its present burst. Within one
    /// urgency, short messages go before long ones and those before bulks.
    pub(crate) fn place(self, burst: u64) -> i32 {
        let urgency = self.urgency.unwrap_or(DEFAULT_URGENCY);
        let step = match burst {
            0..SMALL => 2,
            SMALL..BULK => 1,
            _ => 0,
        };
        i32::from(LEAST_URGENCY - urgency) * STEPS + step
    }
}

/// A bare item, as far as anybody here wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Integer(i64),
    Boolean(bool),
    Other,
}

/// Parses a dictionary (RFC 8941 §4.2.2). `None` if it is none.
fn dictionary(text: &[u8], mut each: impl FnMut(&[u8], Item)) -> Option<()> {
    let mut rest = Text(text);
    rest.skip(b" ");
    while !rest.is_empty() {
        let key = rest.key()?;
        let item = if rest.eat(b'=') {
            rest.member()?
        } else {
            Item::Boolean(true)
        };
        rest.parameters()?;
        each(key, item);
        rest.skip(b" \t");
        if rest.is_empty() {
            break;
        }
        if !rest.eat(b',') {
            return None;
        }
        rest.skip(b" \t");
        if rest.is_empty() {
            // A comma and nothing behind it.
            return None;
        }
    }
    Some(())
}

/// What is left to parse.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn skip(&mut self, bytes: &[u8]) {
        self.run(|byte| bytes.contains(&byte));
    }

    /// Takes bytes as long as they are of a kind.
    fn run(&mut self, of: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !of(*byte));
        let (run, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        run
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let first = *self.0.first()?;
        (first.is_ascii_lowercase() || first == b'*').then(|| {
            self.run(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
        })
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    /// An item or a list of items.
    fn member(&mut self) -> Option<Item> {
        if !self.eat(b'(') {
            return self.item();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Item::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Item> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                self.eat(b'?');
                let one = self.eat(b'1');
                (one || self.eat(b'0')).then_some(Item::Boolean(one))
            }
            b':' => {
                self.eat(b':');
                self.run(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
                self.eat(b':').then_some(Item::Other)
            }
            first if first.is_ascii_alphabetic() || first == b'*' => {
                self.run(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    /// At most fifteen digits, or twelve, a point and three (RFC 8941 §4.2.4).
    fn number(&mut self) -> Option<Item> {
        let negative = self.eat(b'-');
        let digits = self.run(|b| b.is_ascii_digit());
        if self.eat(b'.') {
            let fraction = self.run(|b| b.is_ascii_digit());
            let fits = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Item::Other);
        }
        let fits = (1..=15).contains(&digits.len());
        let value = digits
            .iter()
            .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        fits.then_some(Item::Integer(if negative { -value } else { value }))
    }

    fn string(&mut self) -> Option<Item> {
        self.eat(b'"');
        loop {
            self.run(|b| matches!(b, 0x20..=0x7e) && b != b'"' && b != b'\\');
            if self.eat(b'"') {
                return Some(Item::Other);
            }
            if !(self.eat(b'\\') && (self.eat(b'"') || self.eat(b'\\'))) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given(urgency: Option<u8>, incremental: Option<bool>) -> Given {
        Given {
            urgency,
            incremental,
        }
    }

    /// RFC 9218 §4 and §5; RFC 8941 §4.2.
    #[test]
    fn values_are_read_as_structured_fields_and_what_is_wrong_says_nothing() {
        for (text, urgency, incremental) in [
            ("", None, None),
            ("u=0", Some(0), None),
            ("u=7, i", Some(7), Some(true)),
            ("i,u=5", Some(5), Some(true)),
            ("u=1\t ,\ti=?0", Some(1), Some(false)),
            ("  u=2  ", Some(2), None),
            // Out of range or of another type: ignored, and nothing else is.
            ("u=8, i", None, Some(true)),
            ("u=-1, i", None, Some(true)),
            ("u=3.0, i", None, Some(true)),
            ("u=\"1\", i", None, Some(true)),
            ("u, i=1", None, None),
            ("u=?1, i=yes", None, None),
            ("u=(1 2), i", None, Some(true)),
            ("u=999999999999999, i", None, Some(true)),
            // Not known, with parameters of any kind.
            (
                r#"x="a\"\\b";y, u=4;z=1.5;w=:aGk=:, a=(1 "b";c=*t:/ );d, *k-_.=tok"#,
                Some(4),
                None,
            ),
            // The last one counts.
            ("u=1, u=2", Some(2), None),
            ("u=1, u=9", None, None),
            ("i, i=?0", None, Some(false)),
            // No dictionary.
            ("u=1,", None, None),
            ("u=1 i", None, None),
            ("u=1,,i", None, None),
            ("U=1", None, None),
            ("u=", None, None),
            ("u=1;", None, None),
            ("u=1, x=\"", None, None),
            ("u=1, x=(1", None, None),
            ("u=1, x=(1\"a\")", None, None),
            ("u=1, i=?2", None, None),
            ("u=1, x=1234567890123456", None, None),
            ("u=1, x=1.2345", None, None),
            ("u=1, x=:a", None, None),
            ("u=1, \u{e9}", None, None),
        ] {
            assert_eq!(
                Given::parse(text.as_bytes()),
                given(urgency, incremental),
                "{text:?}"
            );
        }
        let long = format!("u=1, x=\"{}\"", "a".repeat(LONGEST));
        assert_eq!(Given::parse(long.as_bytes()), Given::default());
    }

    #[test]
    fn lines_of_one_field_are_one_dictionary() {
        let mut headers = HeaderMap::new();
        assert_eq!(Given::of(&headers), Given::default());
        for line in ["u=1", "i", "u=6"] {
            headers.append(PRIORITY, line.parse().unwrap());
        }
        assert_eq!(Given::of(&headers), given(Some(6), Some(true)));
    }

    /// RFC 9218 §8.
    #[test]
    fn a_servers_word_goes_before_its_clients_for_what_it_names() {
        let client = given(Some(5), Some(true));
        assert_eq!(given(Some(1), None).or(client), given(Some(1), Some(true)));
        assert_eq!(Given::default().or(client), client);
    }

    #[test]
    fn small_goes_before_large_within_one_urgency_and_urgency_before_all() {
        let of = |urgency, burst| given(Some(urgency), None).place(burst);
        let silent = Given::default();
        assert_eq!(silent.place(0), of(3, 0));
        assert!(silent.place(SMALL - 1) > silent.place(SMALL));
        assert!(silent.place(BULK - 1) > silent.place(BULK));
        assert_eq!(silent.place(BULK), silent.place(u64::MAX));
        for urgency in 1..=7 {
            assert!(of(urgency - 1, u64::MAX) > of(urgency, 0));
        }
        assert!(FIRST > of(0, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let given = Given::parse(&bytes);
            prop_assert!(given.urgency.is_none_or(|urgency| urgency <= LEAST_URGENCY));
            prop_assert_eq!(Given::unpack(given.pack()), given);
        }

        #[test]
        fn a_byte_holds_what_was_given(urgency in proptest::option::of(0_u8..=7), incremental in any::<Option<bool>>()) {
            let given = given(urgency, incremental);
            prop_assert_eq!(Given::unpack(given.pack()), given);
        }
    }
}
