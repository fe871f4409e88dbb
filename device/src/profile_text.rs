//! A profile as text: all of it, with a comment for each field.
//!
//! Nothing here knows a field. Names, order and what stands beside a field come from the firmware's definition (its
//! documentation comments, by way of a JSON schema); the values from the profile; the range from the check that is
//! made of every profile: the field is set to what cannot be right, and the refusal says what can. The unit is the last
//! word of the field's name, as all names here have it. So a field that is added is printed, and one that says nothing
//! about itself or is not checked fails a test.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::Value;
use toe_firmware::Profile;

/// Columns of a comment.
const WIDTH: usize = 100;

/// The whole profile as TOML; `name` is told in the first line. What is printed reads back as the same profile.
///
/// # Errors
/// TOML cannot hold one of its values.
pub fn print(name: &str, profile: &Profile) -> Result<String, toml::ser::Error> {
    let plain = toml::to_string(profile)?;
    let schema = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = schema.into_generator().into_root_schema_for::<Profile>();
    let mut text = String::new();
    comment(&mut text, &format!("The profile `{name}` of toe-nic {}, in full.", env!("CARGO_PKG_VERSION")));
    comment(&mut text, "A file may leave out any field: it then has the value that it has in `default`.");
    let mut table = String::new();
    for line in plain.lines() {
        if let Some(path) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            path.clone_into(&mut table);
            text.push('\n');
            comment(&mut text, description(schema.as_value(), path));
        } else if let Some((key, _)) = line.split_once(" = ") {
            let path = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            text.push('\n');
            comment(&mut text, description(schema.as_value(), &path));
            comment(&mut text, &values(schema.as_value(), profile, &path));
        }
        if !line.is_empty() {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

fn field<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(schema, |schema, key| &schema["properties"][key])
}

fn description<'a>(schema: &'a Value, path: &str) -> &'a str {
    field(schema, path)["description"].as_str().unwrap_or_default()
}

/// What a field may be.
fn values(schema: &Value, profile: &Profile, path: &str) -> String {
    let field = field(schema, path);
    if field["type"] == "boolean" {
        return "`true` or `false`.".to_owned();
    }
    if let Some(variants) = field["oneOf"].as_array() {
        let mut text = "One of:".to_owned();
        for variant in variants {
            let (name, what) = (variant["const"].as_str(), variant["description"].as_str());
            let name = name.unwrap_or_default();
            if refusal(profile, path, name.into()).is_none() {
                // Infallible: a String takes everything.
                let _ = write!(text, " `{name}`: {}", what.unwrap_or_default());
            }
        }
        return text;
    }
    let unit = match path.rsplit(['.', '_']).next().unwrap_or_default() {
        "ms" => "Milliseconds",
        "us" => "Microseconds",
        "bytes" => "Bytes",
        "pages" => "Pages",
        "frames" => "Frames",
        "segments" => "Segments",
        _ => "A number",
    };
    match range(profile, path) {
        Some(range) => format!("{unit}: {range}."),
        None => String::new(),
    }
}

/// What the check of the profile says that this field may be, the others being as they are.
fn range(profile: &Profile, path: &str) -> Option<String> {
    let widest = [i64::MAX, u32::MAX.into(), u16::MAX.into(), u8::MAX.into(), 0];
    widest.into_iter().find_map(|value| refusal(profile, path, value.into()))
}

/// What the check says that a field may be, if it may not be that.
fn refusal(profile: &Profile, path: &str, value: toml::Value) -> Option<String> {
    let mut table = toml::Table::try_from(profile).ok()?;
    let (path_of_table, key) = path.rsplit_once('.')?;
    let inner = path_of_table.split('.').try_fold(&mut table, |table, key| table.get_mut(key)?.as_table_mut())?;
    inner.insert(key.to_owned(), value);
    // What the field's type cannot hold is not for the check.
    let changed: Profile = table.try_into().ok()?;
    changed.validate().err().filter(|error| error.field == path).map(|error| error.allowed)
}

/// Comment lines of no more than [`WIDTH`] columns.
fn comment(text: &mut String, what: &str) {
    let mut line = String::new();
    for word in what.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH - 2 {
            text.push_str(&format!("# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        text.push_str(&format!("# {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_as_the_same_profile() {
        for name in Profile::BUILT_IN {
            let profile = Profile::built_in(name).unwrap();
            let text = print(name, &profile).unwrap();
            assert_eq!(toml::from_str::<Profile>(&text).unwrap(), profile, "{text}");
            assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        }
    }

    #[test]
    fn every_field_is_there_with_what_it_is_and_what_it_may_be() {
        for name in Profile::BUILT_IN {
            let profile = Profile::built_in(name).unwrap();
            let text = print(name, &profile).unwrap();
            let mut printed = 0;
            // Blocks of comment lines, then the field's line.
            let mut comments = Vec::new();
            for line in text.lines() {
                if line.starts_with('#') {
                    comments.push(line);
                    continue;
                }
                if let Some((key, value)) = line.split_once(" = ") {
                    printed += 1;
                    let last = comments.last().copied().unwrap_or_default();
                    assert!(comments.len() >= 2, "`{key}` says too little of itself: {comments:?}");
                    let is_number = value.parse::<i64>().is_ok();
                    assert!(!is_number || comments.join(" ").contains(" to "), "`{key}` has no range: {last}");
                }
                comments.clear();
            }
            let table = toml::Table::try_from(&profile).unwrap();
            assert_eq!(printed, table.values().map(leaves).sum::<usize>());
        }
    }

    fn leaves(value: &toml::Value) -> usize {
        value.as_table().map_or(1, |table| table.values().map(leaves).sum())
    }

    #[test]
    fn ranges_and_units_are_those_of_the_check() {
        let text = print("default", &Profile::default()).unwrap();
        for expected in [
            "# Bytes of a page of send or receive memory: a power of two.\n\
             # Bytes: a power of two from 512 to 65536.\npage_bytes = 4096\n",
            "# Milliseconds: 0 to 499.\ndelayed_ack_ms = 40\n",
            "# `true` or `false`.\nrepeat_fin = false\n",
            "# TCP's parameters.\n[tcp]\n",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
        assert!(text.contains("\n# One of: `evict`: "), "only what the pool can do: {text}");
        assert!(text.contains("# One of: `deny`: The request fails; a SYN is dropped. `fallback`:"), "{text}");
    }
}
