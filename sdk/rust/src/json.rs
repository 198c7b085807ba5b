//! Scalars as JSON text, for the fields of log lines and the details of errors. There are no lists and no objects.

/// A JSON scalar as text. Strings, numbers and booleans convert to it with `into()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// The JSON text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        // One closure adds all bytes, because this code is in every component and should be small.
        let mut out = Vec::with_capacity(text.len() + 2);
        let mut add = |bytes: &[u8]| out.extend_from_slice(bytes);
        add(b"\"");
        // Only bytes below 0x80 are changed, so the result is UTF-8 like the input.
        for byte in text.bytes() {
            let escaped = [b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            match byte {
                b'"' | b'\\' => add(&[b'\\', byte]),
                0..0x20 => add(&escaped),
                _ => add(&[byte]),
            }
        }
        add(b"\"");
        Self(String::from_utf8(out).unwrap_or_default())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self(if value { "true" } else { "false" }.to_owned())
    }
}

impl From<f64> for Json {
    /// JSON has no NaN and no infinities. They become strings, as everywhere in dovetail.
    fn from(value: f64) -> Self {
        if value.is_finite() {
            Self(value.to_string())
        } else if value.is_nan() {
            Self("\"NaN\"".to_owned())
        } else {
            Self(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }.to_owned())
        }
    }
}

impl From<f32> for Json {
    fn from(value: f32) -> Self {
        // The shortest digits of the f32. The f64 would print digits that the f32 does not have.
        if value.is_finite() { Self(value.to_string()) } else { Self::from(f64::from(value)) }
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Json {
            fn from(value: $ty) -> Self {
                Self(value.to_string())
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn scalars() {
        let text = |json: Json| json.into_text();
        assert_eq!(text("a \"b\"\\\n\u{1}ü".into()), r#""a \"b\"\\\u000a\u0001ü""#);
        assert_eq!(text(3_usize.into()), "3");
        assert_eq!(text((-3_i8).into()), "-3");
        assert_eq!(text(0.1_f32.into()), "0.1");
        assert_eq!(text(f32::NAN.into()), "\"NaN\"");
        assert_eq!(text(f64::NEG_INFINITY.into()), "\"-Infinity\"");
        assert_eq!(text(true.into()), "true");
    }
}
