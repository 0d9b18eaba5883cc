//! Draws a cross-evaluation as SVG: right by slice, right in the end and wrong, by number of
//! recordings, one panel for each policy.
//!
//! `curves FILE.csv OUT.svg`; the CSV is `crosseval`'s output.

use std::fmt::Write;

/// One line of the CSV.
struct Point {
    policy: String,
    recordings: f64,
    /// Shares of what was asked: by slice, in the end, wrong.
    shares: [f64; 3],
}

const NAMES: [&str; 3] = ["right by slice", "right in the end", "wrong"];
const COLOURS: [&str; 3] = ["#2166ac", "#4dac26", "#b2182b"];
const POLICIES: [&str; 3] = ["guard", "assume", "whole"];
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 34.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = words.as_slice() else { return Err("usage: curves FILE.csv OUT.svg".into()) };
    let text = std::fs::read_to_string(input)?;
    let mut points = Vec::new();
    let mut program = String::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let number =
            |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).ok_or("a line is cut off");
        let asked = number(4)?.max(1.0);
        program = fields[0].to_string();
        points.push(Point {
            policy: fields[1].to_string(),
            recordings: number(2)?,
            shares: [number(5)? / asked, number(6)? / asked, number(7)? / asked],
        });
    }
    let most = points.iter().map(|point| point.recordings).fold(1.0, f64::max);
    let total = (LEFT + WIDTH + 16.0) * 3.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total} \
         {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text \
         x=\"{LEFT}\" y=\"14\" font-size=\"13\">{program}: share of answers by number of recordings</text>\n",
        TOP + HEIGHT + 56.0
    );
    for (panel, policy) in POLICIES.iter().enumerate() {
        let left = LEFT + panel as f64 * (LEFT + WIDTH + 16.0);
        let x = |recordings: f64| left + (recordings - 1.0) / (most - 1.0).max(1.0) * WIDTH;
        let y = |share: f64| TOP + (1.0 - share) * HEIGHT;
        writeln!(svg, "<text x=\"{left}\" y=\"{}\">policy {policy}</text>", TOP - 6.0)?;
        for step in 0..=4 {
            let share = f64::from(step) / 4.0;
            let (at, end) = (y(share), left + WIDTH);
            writeln!(svg, "<line x1=\"{left}\" y1=\"{at}\" x2=\"{end}\" y2=\"{at}\" stroke=\"#ddd\"/>")?;
            writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:.0} %</text>",
                left - 4.0,
                at + 4.0,
                share * 100.0
            )?;
        }
        let mine: Vec<&Point> = points.iter().filter(|point| point.policy == *policy).collect();
        for point in &mine {
            let at = x(point.recordings);
            writeln!(
                svg,
                "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                TOP + HEIGHT + 14.0,
                point.recordings
            )?;
        }
        for (curve, colour) in COLOURS.iter().enumerate() {
            let line: Vec<String> = mine
                .iter()
                .map(|point| format!("{:.1},{:.1}", x(point.recordings), y(point.shares[curve])))
                .collect();
            writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                line.join(" ")
            )?;
        }
    }
    for (curve, name) in NAMES.iter().enumerate() {
        let (left, at) = (LEFT + curve as f64 * 130.0, TOP + HEIGHT + 40.0);
        writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{}\"/>",
            at - 6.0,
            COLOURS[curve]
        )?;
        writeln!(svg, "<text x=\"{}\" y=\"{at}\">{name}</text>", left + 18.0)?;
    }
    svg.push_str("</svg>\n");
    std::fs::write(output, svg)?;
    Ok(())
}
