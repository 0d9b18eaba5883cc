//! Pieces of a page: text, values of the report, tables.
//!
//! All that comes from a guest is escaped, for terminals too, since text is copied from pages.

use std::fmt::Write;

use engine::Text;
use serde_json::Value;

use crate::format;

/// A column of a table: its head, behind `>` for numbers and `~` for long texts, and what a row has
/// there.
pub type Column<'c> = (&'c str, &'c dyn Fn(&Value) -> String);

/// Text for a page.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if format::is_obeyed(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// A value of the report in words; what is no UTF-8 stands as its escapes.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Object(object) => {
            object.get("bytes").and_then(Value::as_str).map_or_else(String::new, |hex| {
                let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                format::shown(&Text(hex.as_bytes().chunks(2).filter_map(digits).collect()))
            })
        }
        Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// What is at a key, for a page.
pub fn at(row: &Value, key: &str) -> String {
    escaped(&shown(&row[key]))
}

/// A section with a table.
pub fn table(page: &mut String, (id, title): (&str, &str), rows: &[Value], columns: &[Column<'_>]) {
    let _ = writeln!(page, "<section id=\"{id}\"><h2>{title} <small>{}</small></h2>", rows.len());
    if rows.is_empty() {
        page.push_str("<p class=\"none\">none</p></section>\n");
        return;
    }
    page.push_str("<div class=\"wide\"><table><thead><tr>");
    let class = |head: &str| match head.as_bytes().first() {
        Some(b'>') => " class=\"number\"",
        Some(b'~') => " class=\"long\"",
        _ => "",
    };
    for (head, _) in columns {
        let _ = write!(page, "<th{}>{}</th>", class(head), head.trim_start_matches(['>', '~']));
    }
    page.push_str("</tr></thead><tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (head, cell) in columns {
            let _ = write!(page, "<td{}>{}</td>", class(head), cell(row));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></section>\n");
}

/// The rows at a key.
pub fn rows<'r>(report: &'r Value, key: &str) -> &'r [Value] {
    report[key].as_array().map_or(&[], Vec::as_slice)
}

/// A time of the report, in whole seconds of UTC.
pub fn moment(time: &Value) -> String {
    let text = shown(time);
    escaped(text.split('.').next().unwrap_or_default()).replacen('T', " ", 1)
}

/// How long a machine has been up.
pub fn up(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    let (days, hours) = (minutes / 1440, minutes / 60 % 24);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {:.0} s", seconds % 60.0),
        (0, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {hours} h {} min", minutes % 60),
    }
}

/// What a row of evidence says, its keys and values.
pub fn facts(row: &Value) -> String {
    let object = row.as_object().into_iter().flatten();
    let told = object.filter(|(_, value)| !value.is_null()).map(|(key, value)| match value {
        Value::Array(all) if all.iter().any(Value::is_object) => {
            let inner: Vec<String> = all.iter().map(facts).collect();
            format!("{}: ({})", escaped(key), inner.join("; "))
        }
        Value::Object(object) if !object.contains_key("bytes") => {
            format!("{}: {}", escaped(key), facts(value))
        }
        Value::Number(number) if matches!(key.as_str(), "address" | "leads_to" | "start") => {
            format!("{}: {:#x}", escaped(key), number.as_u64().unwrap_or_default())
        }
        value => format!("{}: {}", escaped(key), escaped(&shown(value))),
    });
    told.collect::<Vec<_>>().join(", ")
}
