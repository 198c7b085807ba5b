//! URLs of stores in messages: a message must not contain a password.

/// The URL without user and password: everything between the scheme and the last `@` is removed, because a password may
/// contain any character, also unescaped. A text without `://` is returned unchanged.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_removed_whatever_it_contains() {
        for url in ["redis://h/0", "redis://:p@h/0", "redis://u:p@h/0", "redis://u:p@/:q@h/0"] {
            assert_eq!(without_credentials(url), "redis://h/0", "{url}");
        }
        assert_eq!(without_credentials("sqlite"), "sqlite");
    }
}
