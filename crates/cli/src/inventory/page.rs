//! An inventory as one page: no network, no script needed to read it.
//!
//! The script sorts and filters tables and does nothing else; without it all is there.

use std::fmt::Write;

use serde_json::Value;

use super::markup::{Column, at, escaped, facts, moment, rows, shown, table, up};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of an inventory.
#[must_use]
pub fn page(report: &Value) -> String {
    let host = shown(&report["identity"]["host"]);
    let title = if host.is_empty() { "A machine".to_owned() } else { escaped(&host) };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\"><title>{title}: virtuoso report</title>\
         <style>{STYLE}</style></head><body>\n<header><h1>{title}</h1>\n"
    );
    identity(&mut page, report);
    page.push_str("</header>\n<main>\n");
    findings(&mut page, report);
    processes(&mut page, report);
    sockets(&mut page, report);
    deleted(&mut page, report);
    modules(&mut page, report);
    mounts(&mut page, report);
    kernel(&mut page, report);
    unread(&mut page, report);
    made_by(&mut page, report);
    let _ = writeln!(page, "</main><script>{SCRIPT}</script></body></html>");
    page
}

fn identity(page: &mut String, report: &Value) {
    let about = &report["identity"];
    page.push_str("<dl>");
    let mut line = |name: &str, text: String| {
        if !text.is_empty() {
            let _ = write!(page, "<dt>{name}</dt><dd>{text}</dd>");
        }
    };
    line("Kernel", at(about, "kernel"));
    line("Command line", at(about, "command_line"));
    line("Time", moment(&about["time"]));
    line("Booted", moment(&about["boot"]));
    line("Up", about["uptime_seconds"].as_f64().map_or_else(String::new, up));
    line("Target", at(report, "target"));
    page.push_str("</dl>\n");
}

fn findings(page: &mut String, report: &Value) {
    let found = rows(report, "findings");
    let _ = writeln!(page, "<section id=\"findings\"><h2>Look at first <small>{}</small></h2>", found.len());
    if found.is_empty() {
        page.push_str("<p class=\"none\">nothing that stands out: that is no proof of health</p>\n");
    }
    for it in found {
        let evidence = rows(it, "evidence");
        let weight = if it["weight"] == "alarm" { "alarm" } else { "look" };
        let _ = write!(page, "<details class=\"{weight}\"><summary>{}</summary>", at(it, "what"));
        page.push_str("<ul>");
        for row in evidence {
            let _ = write!(page, "<li><code>{}</code></li>", facts(row));
        }
        page.push_str("</ul></details>\n");
    }
    page.push_str("</section>\n");
}

fn processes(page: &mut String, report: &Value) {
    let name = |row: &Value| {
        let depth = row["depth"].as_u64().unwrap_or_default().min(32);
        format!("<span style=\"padding-left:{}em\">{}</span>", depth, at(row, "name"))
    };
    let command = |row: &Value| match row["error"].as_str() {
        Some(error) => format!("<em>{}</em>", escaped(error)),
        None => at(row, "command"),
    };
    let executable = |row: &Value| {
        let file = &row["executable"];
        let mut text = at(file, "path");
        for (key, word) in [("deleted", "deleted"), ("memory_only", "memory only")] {
            if file[key] == true {
                let _ = write!(text, " <mark>{word}</mark>");
            }
        }
        if let Some(error) = file["error"].as_str() {
            let _ = write!(text, " <em>{}</em>", escaped(error));
        }
        text
    };
    let digest = |row: &Value| format!("<code>{}</code>", at(&row["executable"], "sha256"));
    let columns: [Column<'_>; 10] = [
        (">PID", &|row| at(row, "pid")),
        ("Name", &name),
        (">Parent", &|row| at(row, "ppid")),
        (">User", &|row| at(row, "euid")),
        ("State", &|row| at(row, "state")),
        ("Started", &|row| moment(&row["start"])),
        (">Threads", &|row| at(row, "threads")),
        ("~Command line", &command),
        ("~Executable", &executable),
        ("~SHA-256", &digest),
    ];
    table(page, ("processes", "Processes"), rows(report, "processes"), &columns);
}

fn sockets(page: &mut String, report: &Value) {
    let address = |row: &Value, key: &str| {
        let it = &row[key];
        match it["port"].as_u64() {
            Some(port) => format!("{}:{port}", at(it, "address")),
            None => at(it, "path"),
        }
    };
    let holders = |row: &Value| {
        let one = |it: &Value| format!("{}/{} fd {}", at(it, "pid"), at(it, "name"), at(it, "descriptor"));
        rows(row, "processes").iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let columns: [Column<'_>; 7] = [
        ("Protocol", &|row| [at(row, "protocol"), at(row, "kind")].join(" ")),
        ("State", &|row| at(row, "state")),
        ("~Local", &|row| address(row, "local")),
        ("~Remote", &|row| address(row, "remote")),
        (">User", &|row| at(row, "uid")),
        (">Inode", &|row| at(row, "inode")),
        ("~Processes", &holders),
    ];
    table(page, ("sockets", "Sockets"), rows(report, "sockets"), &columns);
}

fn deleted(page: &mut String, report: &Value) {
    let columns: [Column<'_>; 6] = [
        (">PID", &|row| at(row, "pid")),
        ("Name", &|row| at(row, "name")),
        ("As", &|row| [at(row, "as"), at(row, "descriptor")].join(" ")),
        ("~Path", &|row| at(row, "path")),
        (">Size", &|row| at(row, "size")),
        (">Inode", &|row| at(row, "inode")),
    ];
    table(page, ("deleted", "Deleted files in use"), rows(report, "deleted_files"), &columns);
}

fn modules(page: &mut String, report: &Value) {
    let columns: [Column<'_>; 6] = [
        ("Module", &|row| at(row, "name")),
        ("Address", &|row| at(row, "address")),
        (">Bytes", &|row| at(row, "bytes")),
        (">Uses", &|row| at(row, "uses")),
        ("~Used by", &|row| at(row, "used_by")),
        ("State", &|row| at(row, "state")),
    ];
    table(page, ("modules", "Kernel modules"), rows(report, "modules"), &columns);
}

fn mounts(page: &mut String, report: &Value) {
    let columns: [Column<'_>; 5] = [
        ("~On", &|row| at(row, "on")),
        ("Type", &|row| at(row, "type")),
        ("~Source", &|row| at(row, "source")),
        ("Root", &|row| at(row, "root")),
        ("~Options", &|row| at(row, "options")),
    ];
    table(page, ("mounts", "Mounts of process 1"), rows(report, "mounts"), &columns);
}

fn kernel(page: &mut String, report: &Value) {
    let found = &report["tampering"];
    page.push_str("<section id=\"kernel\"><h2>The kernel's code and read-only data</h2>\n");
    if let Some(error) = found["error"].as_str() {
        let _ = writeln!(page, "<p>not compared: {}</p></section>", escaped(error));
        return;
    }
    page.push_str("<dl>");
    for (name, key) in [
        ("Pages of code compared", "pages"),
        ("Pages of read-only data compared", "data"),
        ("Interrupt gates compared", "gates"),
        ("Modules compared", "modules"),
        ("Variants that training knows", "variants"),
        ("Changes that training does not know", "unknown"),
        ("Changes that are not the kernel's own", "foreign"),
        ("Not compared", "not_compared"),
    ] {
        let text = if found[key].is_object() { facts(&found[key]) } else { at(found, key) };
        let _ = write!(page, "<dt>{name}</dt><dd>{text}</dd>");
    }
    page.push_str("</dl></section>\n");
}

fn unread(page: &mut String, report: &Value) {
    let columns: [Column<'_>; 2] =
        [(">Code", &|row| at(row, "code")), ("~What, and why", &|row| at(row, "what"))];
    table(page, ("unread", "What could not be read"), rows(report, "unread"), &columns);
}

fn made_by(page: &mut String, report: &Value) {
    let pack = &report["pack"];
    let programs: Vec<String> = rows(pack, "programs")
        .iter()
        .map(|it| format!("{} <code>{}</code>", at(it, "name"), at(it, "sha256")))
        .collect();
    let seconds = report["seconds"].as_f64().unwrap_or_default();
    let _ = write!(
        page,
        "<footer><p>virtuoso {} asked the guest's own code in {seconds:.1} s, by the pack {}.</p><p>{}</p>",
        at(report, "virtuoso"),
        at(pack, "directory"),
        programs.join("<br>")
    );
    for remark in rows(report, "remarks") {
        let _ = write!(page, "<p>{}</p>", escaped(&shown(remark)));
    }
    page.push_str("</footer>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_of_a_guest_is_obeyed() {
        let evil = "</td><script>alert(1)</script>\u{202e}\u{1b}[31m'\"&";
        let path = json!({ "text": evil, "bytes": "2fff61" });
        let holder = json!({ "pid": 1, "name": evil });
        let evidence = json!([{ evil: evil, "in": [{ evil: evil }] }]);
        let page = page(&json!({
            "identity": { "host": evil, "kernel": evil, "uptime_seconds": 90061.0 },
            "processes": [{ "pid": 1, "name": evil, "command": [evil], "depth": u64::MAX,
                "executable": { "path": path, "deleted": true, "sha256": evil } }],
            "sockets": [{ "protocol": "unix", "local": { "path": evil }, "processes": [holder] }],
            "findings": [{ "weight": evil, "what": evil, "evidence": evidence }],
            "unread": [{ "what": evil, "code": 13 }],
            "remarks": [evil],
        }));
        assert_eq!(page.matches("<script>").count(), 1, "only ours");
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}') && !page.contains("alert(1)</"));
        assert!(page.contains("1 d 1 h 1 min") && page.contains("padding-left:32em"));
        assert!(page.contains("/\\xffa <mark>deleted</mark>") && page.contains("class=\"look\""));
    }

    #[test]
    fn a_page_of_nothing_says_so() {
        let page = page(&json!({}));
        assert!(page.contains("nothing that stands out") && page.contains("<p class=\"none\">none</p>"));
        assert!(!page.contains("http://") && !page.contains("https://"));
    }
}
