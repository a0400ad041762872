//! What pages of results share: one HTML file that opens without a network and without a script,
//! on a phone, on a desk and on paper.

use std::fmt::Write;

const BEGIN: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
"#;

const STYLE: &str = r#"<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5em auto; max-width: 1060px; padding: 0 1em; color: #222; background: #fff; }
h1, h2, h3, dd, summary { overflow-wrap: anywhere; }
h2 { border-top: 2px solid #222; padding-top: .4em; margin-top: 2em; }
.charts { display: flex; flex-wrap: wrap; gap: 1em 2em; align-items: flex-start; }
svg.chart { flex: 0 1 500px; width: 100%; max-width: 500px; min-width: 0; height: auto; }
svg text, svg tspan { font: 13px system-ui, sans-serif; fill: #222; }
svg text.small, svg tspan.small { font-size: 11px; fill: #666; }
svg tspan.strong { font-weight: bold; }
svg .light { fill: #fff; }
svg .dark { fill: #222; }
svg .grid { stroke: #ddd; }
svg .axis { stroke: #888; fill: none; }
svg polyline { fill: none; stroke-width: 2; }
svg .fit { stroke-dasharray: 5 3; stroke-width: 1.5; }
svg .span { stroke: #bbb; stroke-width: 2; }
svg .figure, svg .bar { fill: #0072b2; }
svg .target { stroke: #222; stroke-width: 2; }
svg .other { fill: #fff; stroke: #d55e00; stroke-width: 2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; white-space: nowrap; }
th, td { padding: .25em .8em .25em 0; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2), .words { text-align: left; }
td svg { display: block; width: 120px; height: 18px; }
.missed, .wrong { color: #b00; font-weight: bold; }
.note { color: #555; font-size: 13px; max-width: 44em; }
details { margin: 0 0 1.5em; }
dl { overflow: hidden; }
dt { float: left; clear: left; width: 7em; color: #666; }
dd { margin: 0 0 0 7em; }
code { font-size: 13px; overflow-wrap: anywhere; }
@media print {
  body { font-size: 11px; max-width: none; margin: 0; }
  svg.chart { max-width: 46%; }
  svg, tr, h2, h3 { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
  table { font-size: 9px; white-space: normal; }
}
</style>
"#;

/// The pictures of a page, with the heading that each stands under: what a browser or a paper takes as
/// a file of its own.
pub fn pictures(page: &str) -> impl Iterator<Item = (String, String)> + '_ {
    const OPEN: &str = "<svg class=\"chart\"";
    const CLOSE: &str = "</svg>";
    let starts = page.match_indices(OPEN).map(|(at, _)| at);
    starts.filter_map(move |at| {
        let end = at + page[at..].find(CLOSE)?;
        let heading = page[..at].rfind("<h2>").map_or("", |at| &page[at + 4..]);
        let heading = heading
            .split_once("</h2>")
            .map_or("", |(heading, _)| heading);
        let picture = &page[at..end + CLOSE.len()];
        let (_, title) = picture.split_once("<title>")?;
        let (title, _) = title.split_once("</title>")?;
        let (opening, inner) = picture.split_once('>')?;
        let whole = format!(
            "{opening} xmlns=\"http://www.w3.org/2000/svg\">\n{STYLE}\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{inner}\n"
        );
        Some((format!("{heading} {title}"), whole))
    })
}

/// A title as part of a file's name.
pub fn slug(title: &str) -> String {
    let words = title.split(|one: char| !one.is_ascii_alphanumeric());
    let mut slug = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if slug.len() + word.len() > 60 {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&word.to_ascii_lowercase());
    }
    slug
}

/// What ends a page.
pub const END: &str = "</body>\n</html>\n";

/// What begins a page of this title.
pub fn begin(title: &str) -> String {
    let title = escaped(title);
    format!("{BEGIN}<title>{title}</title>\n{STYLE}</head>\n<body>\n<h1>{title}</h1>\n")
}

/// Names with what they stand for.
pub fn definitions(page: &mut String, rows: &[(&str, String)]) {
    page.push_str("<dl>\n");
    for (name, value) in rows {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    }
    page.push_str("</dl>\n");
}

/// Each once, in the order of its first coming.
pub fn distinct<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut once = Vec::new();
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

/// As HTML wants to have it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// No more than so many letters.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_files_of_their_own() {
        let page = "<h2>lrpc</h2><svg class=\"chart\" viewBox=\"0 0 9 9\"><title>a &amp; b</title>\
            <text>1</text></svg><td><svg>no chart</svg></td><h2>wake</h2>\
            <svg class=\"chart\"><title>c</title></svg>";
        let found: Vec<_> = pictures(page).collect();
        let titles: Vec<&str> = found.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, ["lrpc a &amp; b", "wake c"]);
        for (_, picture) in &found {
            assert!(picture.starts_with("<svg class=\"chart\"") && picture.ends_with("</svg>\n"));
            assert!(picture.contains("xmlns") && picture.contains("<style>"));
        }
        assert!(found[0].1.contains("<text>1</text>") && !found[0].1.contains("no chart"));
    }

    #[test]
    fn slugs_are_names_of_files() {
        assert_eq!(
            slug("Round trip, 2 cores: µs/op"),
            "round-trip-2-cores-s-op"
        );
        assert!(slug(&"word ".repeat(40)).len() <= 60);
    }
}
