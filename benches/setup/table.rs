//! The table that is printed: ours first, then each other way with the ratio to ours.

use std::time::Duration;

use super::time::Times;

pub struct Table {
    title: String,
    others: [&'static str; 2],
    rows: Vec<Row>,
}

pub struct Row {
    name: String,
    rounds: usize,
    ours: Duration,
    cells: Vec<String>,
}

impl Row {
    pub fn new(name: &str, ours: Times) -> Self {
        Self { name: name.to_owned(), rounds: ours.len(), ours: ours.median(), cells: vec![shown(&ours)] }
    }

    /// Adds another way's times, or the reason why there are none.
    pub fn other(mut self, times: Option<&Times>, missing: &str) -> Self {
        self.cells.push(match times {
            Some(times) => {
                let ratio = times.median().as_secs_f64() / self.ours.as_secs_f64();
                format!("{}  x{ratio:.2}", shown(times))
            }
            None => missing.to_owned(),
        });
        self
    }
}

impl Table {
    pub fn new(title: &str, others: [&'static str; 2]) -> Self {
        Self { title: title.to_owned(), others, rows: Vec::new() }
    }

    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn print(&self) {
        println!("{} (median / min; xN: so many times ours)", self.title);
        let [first, second] = self.others;
        println!("{:<36} {:>6}  {:<20} {:<30} {:<30}", "", "rounds", "ringfence", first, second);
        for Row { name, rounds, cells, .. } in &self.rows {
            let cell = |index: usize| cells.get(index).map(String::as_str).unwrap_or_default();
            println!("{name:<36} {rounds:>6}  {:<20} {:<30} {:<30}", cell(0), cell(1), cell(2));
        }
        println!();
    }
}

fn shown(times: &Times) -> String {
    format!("{} / {}", unit(times.median()), unit(times.min()))
}

fn unit(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..1e3 => format!("{micros:.1} µs"),
        ..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}
