//! The normal form of a request path: what routes and policies are compared with.
//!
//! `/admin`, `//admin`, `/x/../admin` and `/%61dmin` are one resource to most applications. If they were four to
//! a policy, three of them would go around it. So decisions see one spelling only, and where the spelling of the
//! request was another, the normal one is what is forwarded: the application serves exactly what was decided on.
//! Spellings about which applications disagree among themselves are refused, with their reason.

use std::borrow::Cow;

/// Why a path has no normal form. The request gets 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("the path does not start with '/'")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has a '%' that is not followed by two hexadecimal digits")]
    BadEscape,
    /// NUL, raw or as `%00`: the end of the path to some applications.
    #[error("the path has a NUL")]
    Nul,
    /// `%2F`: a separator to some applications, part of a name to others.
    #[error("the path has an encoded slash (%2F), which could mean two different resources")]
    EncodedSlash,
    /// `\` or `%5C`: a separator to some applications.
    #[error("the path has a backslash, which could mean two different resources")]
    Backslash,
    /// A space, another control character, or `#`.
    #[error("the path has a character that no path may have")]
    Forbidden,
}

/// The normal form of `path` (without query), after RFC 3986 §6.2.2: escapes of unreserved characters are
/// decoded, other escapes upper-case, bytes outside ASCII escaped, `//` becomes `/`, and `.` and `..` segments
/// are taken out. Does not allocate if the path is in normal form. `*` (of `OPTIONS *`) is its own normal form,
/// and nothing at all is `/`.
///
/// # Errors
/// [`PathError`] if the path is malformed, or could mean different things to different applications.
///
/// # Examples
/// ```
/// use weft_policy::normalize_path;
/// assert_eq!(normalize_path("/a//b/../%63").unwrap(), "/a/c");
/// assert!(normalize_path("/a%2Fb").is_err());
/// ```
pub fn normalize_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    match path {
        "" => return Ok(Cow::Borrowed("/")),
        "*" => return Ok(Cow::Borrowed(path)),
        _ if !path.starts_with('/') => return Err(PathError::NotAbsolute),
        _ => {}
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes())?;
    let normal = without_dots(&decoded);
    if normal == path {
        return Ok(Cow::Borrowed(path));
    }
    Ok(Cow::Owned(normal))
}

/// Whether nothing of the path needs a closer look.
fn is_plain(bytes: &[u8]) -> bool {
    let mut last = 0;
    for &byte in bytes {
        let suspicious = match byte {
            b'%' | b'\\' | b'#' | 0..=0x20 | 0x7f.. => true,
            b'/' | b'.' => last == b'/',
            _ => false,
        };
        if suspicious {
            return false;
        }
        last = byte;
    }
    true
}

/// Every byte in its one spelling. ASCII only.
fn decode(bytes: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            check(*byte)?;
            push(&mut out, *byte, !byte.is_ascii());
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return Err(PathError::BadEscape);
        };
        rest = tail;
        let value = hex(*high)? << 4 | hex(*low)?;
        match value {
            0 => return Err(PathError::Nul),
            b'/' => return Err(PathError::EncodedSlash),
            b'\\' => return Err(PathError::Backslash),
            _ => push(&mut out, value, !is_unreserved(value)),
        }
    }
    Ok(out)
}

/// What a path may not have unescaped.
fn check(byte: u8) -> Result<(), PathError> {
    match byte {
        0 => Err(PathError::Nul),
        b'\\' => Err(PathError::Backslash),
        b'#' | 1..=0x20 | 0x7f => Err(PathError::Forbidden),
        _ => Ok(()),
    }
}

fn push(out: &mut String, byte: u8, escaped: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if escaped {
        out.push('%');
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    } else {
        out.push(char::from(byte));
    }
}

pub(crate) fn hex(digit: u8) -> Result<u8, PathError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(PathError::BadEscape),
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 §5.2.4, with empty segments taken out too. `..` at the root stays at the root.
fn without_dots(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut ends_in_directory = true;
    for segment in path.split('/') {
        ends_in_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if ends_in_directory {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equivalent_spellings_have_one_normal_form() {
        for (path, normal) in [
            ("", "/"),
            ("/", "/"),
            ("*", "*"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a///b//", "/a/b/"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/%61dmin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/a%7eb", "/a~b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%25b", "/a%25b"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a..b/.c", "/a..b/.c"),
            ("/a;b=c,d@e:f!$&'()*+", "/a;b=c,d@e:f!$&'()*+"),
        ] {
            assert_eq!(normalize_path(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn ambiguous_and_malformed_paths_are_refused_with_their_reason() {
        for (path, reason) in [
            ("a", PathError::NotAbsolute),
            ("http://x/", PathError::NotAbsolute),
            ("/%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%zz", PathError::BadEscape),
            ("/%u0041", PathError::BadEscape),
            ("/a%00", PathError::Nul),
            ("/a\0", PathError::Nul),
            ("/a%2Fb", PathError::EncodedSlash),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a\\b", PathError::Backslash),
            ("/a%5cb", PathError::Backslash),
            ("/a b", PathError::Forbidden),
            ("/a#b", PathError::Forbidden),
            ("/a\rb", PathError::Forbidden),
        ] {
            assert_eq!(normalize_path(path), Err(reason), "{path}");
        }
    }

    #[test]
    fn a_path_in_normal_form_is_not_copied() {
        for path in ["/", "/a/b.c/", "/a%20b", "/.well-known/x"] {
            assert!(
                matches!(normalize_path(path), Ok(Cow::Borrowed(_))),
                "{path}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_and_has_nothing_to_go_around_with(
            path in "/([a/.%25eEfF#\\\\\u{e9}]|%2e|%61){0,24}"
        ) {
            if let Ok(normal) = normalize_path(&path) {
                let again = normalize_path(&normal).map(Cow::into_owned);
                prop_assert_eq!(again.as_deref(), Ok(&*normal));
                prop_assert!(normal.starts_with('/') && normal.is_ascii());
                prop_assert!(!normal.contains("//"));
                prop_assert!(!normal.split('/').any(|s| s == "." || s == ".."));
            }
        }

        #[test]
        fn any_text_has_a_normal_form_or_a_reason(path in "\\PC{0,40}") {
            let _ = normalize_path(&path);
        }
    }
}
