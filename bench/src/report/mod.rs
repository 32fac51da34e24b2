//! One self-contained HTML page: curves, tables, settings, machine. It loads nothing from anywhere; its script draws SVG out of the data at its end.

mod data;

use serde::Serialize;

pub use self::data::{of_comparison, of_run};

const PAGE: &str = include_str!("page.html");
const PLACE_OF_DATA: &str = "\"DATA\"";

/// Everything on the page.
#[derive(Serialize)]
pub struct Page {
    pub title: String,
    pub description: String,
    pub facts: Vec<String>,
    pub leaves_out: Vec<String>,
    pub failures: Vec<String>,
    pub targets: Vec<crate::compare::judge::Judged>,
    pub cases: Vec<CaseData>,
    pub starts: Vec<serde_json::Value>,
    pub commands: Vec<(String, String)>,
    pub disk_probe: Option<serde_json::Value>,
}

#[derive(Serialize)]
pub struct CaseData {
    pub name: String,
    pub class: String,
    pub describe: String,
    pub settings: serde_json::Value,
    /// A number of records a second; none when saturating.
    pub rate: Option<u64>,
    pub series: Vec<Series>,
}

/// One system in one case.
#[derive(Serialize)]
pub struct Series {
    pub system: String,
    pub client: String,
    pub disturbed: bool,
    /// Medians over rounds, by the names of tables.
    pub figures: Vec<(String, Option<f64>)>,
    pub latencies: Vec<LatencyData>,
}

#[derive(Serialize)]
pub struct LatencyData {
    pub name: String,
    pub closed_loop: bool,
    /// Of all rounds together: quantile, microseconds.
    pub curve: Vec<(f64, f64)>,
    /// Of the middle round.
    pub over_time: Vec<crate::recorder::Interval>,
}

impl Page {
    pub fn html(&self) -> String {
        let data = serde_json::to_string(self).expect("a page is a tree of values");
        // Inside a script nothing may look like its end.
        PAGE.replacen(PLACE_OF_DATA, &data.replace('<', "\\u003c"), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(title: &str) -> String {
        let page = Page {
            title: title.to_string(),
            description: String::new(),
            facts: Vec::new(),
            leaves_out: Vec::new(),
            failures: Vec::new(),
            targets: Vec::new(),
            cases: Vec::new(),
            starts: Vec::new(),
            commands: Vec::new(),
            disk_probe: None,
        };
        page.html()
    }

    #[test]
    fn a_page_stands_alone() {
        let html = page("a title");
        assert!(html.contains("\"title\":\"a title\""));
        for reference in ["src=", "href=", "@import", "fetch(", "XMLHttpRequest"] {
            assert!(!html.contains(reference), "{reference}");
        }
        // The namespace of SVG is a name, not an address.
        assert_eq!(html.matches("http").count(), html.matches("http://www.w3.org/2000/svg").count());
    }

    #[test]
    fn a_comparison_brings_curves_figures_and_settings_of_every_system() {
        use crate::compare::samples::{machine, measurements, place, suite};
        let page = of_comparison(&suite(), &place(), &machine(), &measurements());
        let one = &page.cases[0];
        assert_eq!((one.name.as_str(), page.cases.len()), ("one", 2));
        let corelane = one.series.iter().find(|series| series.system == "corelane").expect("measured");
        assert!(
            corelane
                .figures
                .iter()
                .any(|(name, value)| name == "acknowledged.p50" && value.is_some_and(|us| (us / 250.0 - 1.0).abs() < 0.01))
        );
        assert!(corelane.latencies[0].curve.windows(2).all(|pair| pair[0].1 <= pair[1].1) && !corelane.latencies[0].over_time.is_empty());
        assert_eq!(one.settings["record_bytes"], 1_024);
        assert!(page.html().contains("\"system\":\"kafka\""));
    }

    #[test]
    fn data_cannot_end_the_script() {
        assert!(!page("</script><script>alert(1)").contains("</script><script>"));
    }
}
