//! The plain values of the manifest: what must stand there, and what helps where something else does.

use toml::de::DeValue;

use crate::mistake::{Report, shorten};
use crate::read::{FromToml, read_value};
use crate::units::{Length, Size};

impl FromToml for String {
    const EXPECTED: &'static str = "a string";

    fn from_toml(value: &DeValue<'_>, _: &str, _: &mut Report<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn hint(value: &DeValue<'_>) -> Option<String> {
        let plain = match value {
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            _ => return None,
        };
        Some(format!("write it in quotes: `\"{plain}\"`"))
    }
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_toml(value: &DeValue<'_>, _: &str, _: &mut Report<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl FromToml for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_toml(value: &DeValue<'_>, _: &str, _: &mut Report<'_>) -> Option<Self> {
        let number = value.as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    fn hint(value: &DeValue<'_>) -> Option<String> {
        if value.is_integer() {
            return Some("it is too large for 64 bits".to_owned());
        }
        value.as_str()?.parse::<i64>().ok().map(|number| format!("write it without quotes: `{number}`"))
    }
}

impl FromToml for Vec<String> {
    const EXPECTED: &'static str = "an array of strings";

    fn from_toml(value: &DeValue<'_>, path: &str, report: &mut Report<'_>) -> Option<Self> {
        let items = value.as_array()?.iter().enumerate();
        // A wrong item is reported where it stands; a stand-in takes its place, so that the rest is looked at too.
        let read = items.map(|(at, item)| read_value(&item.span(), item, &format!("{path}[{at}]"), report));
        Some(read.map(|item| item.unwrap_or_else(|| "?".to_owned())).collect())
    }

    fn hint(value: &DeValue<'_>) -> Option<String> {
        let words: Vec<String> = value.as_str()?.split_whitespace().map(|word| format!("{word:?}")).collect();
        Some(format!("write `[{}]`", shorten(&words.join(", "))))
    }
}

impl FromToml for Length {
    const EXPECTED: &'static str = "a duration such as \"30s\"";

    fn from_toml(value: &DeValue<'_>, _: &str, _: &mut Report<'_>) -> Option<Self> {
        Self::parse(value.as_str()?)
    }

    fn hint(value: &DeValue<'_>) -> Option<String> {
        let bare = value.as_integer().map(|number| number.as_str()).or(value.as_str())?;
        match bare.parse::<u32>() {
            Ok(number) => Some(format!("with its unit it is `\"{number}s\"` or `\"{number}ms\"`")),
            Err(_) => Some("the units are ms, s, m, h and d, as in \"1h 30m\"".to_owned()),
        }
    }
}

impl FromToml for Size {
    const EXPECTED: &'static str = "a size such as \"16M\"";

    fn from_toml(value: &DeValue<'_>, path: &str, report: &mut Report<'_>) -> Option<Self> {
        match value {
            DeValue::Integer(_) => i64::from_toml(value, path, report)?.try_into().ok().map(Self),
            DeValue::String(text) => Self::parse(text),
            _ => None,
        }
    }

    fn hint(value: &DeValue<'_>) -> Option<String> {
        value.as_str().map(|_| "a whole number with k, M, G or T (powers of 1024), or of bytes".to_owned())
    }
}
