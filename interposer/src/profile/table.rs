//! Tables named and shaped as those of `nsys stats`, so that who knows these can read them.

use std::fmt::Write;

use super::moved::Moved;
use super::Row;

const API: [&str; 9] = [
    "Time (%)",
    "Total Time (ns)",
    "Num Calls",
    "Avg (ns)",
    "Med (ns)",
    "Min (ns)",
    "Max (ns)",
    "StdDev (ns)",
    "Name",
];
const COPIES: [&str; 4] = ["Total (MB)", "Count", "Avg (MB)", "Operation"];

/// What is printed when the program ends.
pub fn whole(rows: &[Row], ns_per_tick: f64, waits: &[String], moved: &[Moved]) -> String {
    let mut text = String::new();
    section(
        &mut text,
        "CUDA API Summary (cuda_api_sum)",
        &table(&API, &api(rows, ns_per_tick)),
    );
    text.push_str(" Medians are told to a sixteenth of themselves.\n");
    let own = || waits_of(rows, ns_per_tick);
    let waits = match waits.is_empty() {
        true => own(),
        false => waits.iter().map(|line| format!(" {line}\n")).collect(),
    };
    section(&mut text, "Why It Waited", &waits);
    if !moved.is_empty() {
        section(
            &mut text,
            "CUDA API Memory Copies (by Size)",
            &table(&COPIES, &copies(moved)),
        );
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    let _ = write!(text, "\n ** {title}:\n\n{body}");
}

fn api(rows: &[Row], ns_per_tick: f64) -> Vec<Vec<String>> {
    let all: u64 = rows.iter().map(|row| row.calls.total).sum();
    let line = |row: &Row| {
        let calls = &row.calls;
        let ns = |ticks: f64| ticks * ns_per_tick;
        let whole = |ticks: u64| format!("{:.0}", ns(ticks as f64));
        let part = |ticks: f64| format!("{:.1}", ns(ticks));
        vec![
            format!("{:.1}", 100.0 * calls.total as f64 / all.max(1) as f64),
            whole(calls.total),
            calls.count.to_string(),
            part(calls.total as f64 / calls.count as f64),
            part(calls.median),
            whole(calls.least),
            whole(calls.most),
            part(calls.deviation),
            row.name.to_owned(),
        ]
    };
    rows.iter().map(line).collect()
}

/// The calls that wait, with how often and how long.
fn waits_of(rows: &[Row], ns_per_tick: f64) -> String {
    let waits = rows.iter().filter(|row| row.waits);
    let line = |row: &Row| {
        let (count, ms) = (row.calls.count, row.calls.total as f64 * ns_per_tick / 1e6);
        format!("{count:>10} x {ms:>10.2} ms  asked  {}\n", row.name)
    };
    let lines: String = waits.map(line).collect();
    match lines.is_empty() {
        true => " It made no call that waits for the device.\n".to_owned(),
        false => lines,
    }
}

fn copies(moved: &[Moved]) -> Vec<Vec<String>> {
    let mega = |bytes: f64| format!("{:.3}", bytes / 1e6);
    let line = |each: &Moved| {
        vec![
            mega(each.bytes as f64),
            each.count.to_string(),
            mega(each.bytes as f64 / each.count.max(1) as f64),
            each.operation.to_owned(),
        ]
    };
    moved.iter().map(line).collect()
}

/// Columns of numbers, and one of names at the end.
fn table<const N: usize>(heads: &[&str; N], rows: &[Vec<String>]) -> String {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |cells: &[&str]| {
        let numbers = cells[..N - 1].iter().zip(widths);
        let numbers = numbers.map(|(cell, width)| format!(" {cell:>width$} "));
        format!("{} {}\n", numbers.collect::<String>(), cells[N - 1])
    };
    let rules = widths.map(|width| "-".repeat(width));
    let mut text = line(heads) + &line(&rules.each_ref().map(String::as_str));
    for row in rows {
        text += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}
