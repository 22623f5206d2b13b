//! The page: one file, its style, its program and its data in it; it loads nothing.

use super::summary::Summary;
use crate::shell::Outcome;

/// The page without its data. The plots are drawn by its program when it is opened.
const TEMPLATE: &str = include_str!("page.html");

/// Stands in the template where the data go.
const DATA: &str = "/*DATA*/null";

/// Draws the page.
pub(crate) fn draw(summary: &Summary) -> Outcome<String> {
    if TEMPLATE.matches(DATA).count() != 1 {
        return Err(format!("page.html needs `{DATA}` once"));
    }
    Ok(TEMPLATE.replace(DATA, &embedded(&summary.to_json().to_string())))
}

/// JSON that can stand inside a `<script>`: nothing in it can end the element or begin a comment.
fn embedded(json: &str) -> String {
    // In JSON a `<` stands in strings only, where its escape means the same.
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_in_the_data_ends_the_script() {
        let json = serde_json::json!({"name": "</script><!--"});
        let inside = embedded(&json.to_string());
        assert!(!inside.contains('<'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&inside).unwrap(), json);
    }

    #[test]
    fn the_page_loads_nothing() {
        for word in ["http:", "https:", "src=", "@import", "url(", "fetch(", "<link"] {
            // The name of the namespace of SVG is no address that anything is loaded from.
            let text = TEMPLATE.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(word), "page.html contains {word}");
        }
    }
}
