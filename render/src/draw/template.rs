//! Templates: named sets of colours and a font, as in Graphite's `graphTemplates.conf`.

use super::color::LINE_COLORS;

/// One section. What is `None` comes from [`DEFAULT`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    pub(super) name: &'static str,
    pub(super) background: &'static str,
    pub(super) foreground: &'static str,
    pub(super) major_line: &'static str,
    pub(super) minor_line: &'static str,
    pub(super) line_colors: &'static str,
}

pub(super) const DEFAULT: Template = Template {
    name: "default",
    background: "white",
    foreground: "black",
    major_line: "rose",
    minor_line: "grey",
    line_colors: LINE_COLORS,
};

const SOLARIZED: &str = "268bd2aa,859900aa,dc322faa,d33682aa,db4b16aa,b58900aa,2aa198aa,6c71c4aa";

const fn ramp(name: &'static str, line_colors: &'static str) -> Template {
    Template {
        name,
        line_colors,
        ..DEFAULT
    }
}

/// Graphite's own, then `light` and `dark` (ours).
const TEMPLATES: &[Template] = &[
    DEFAULT,
    Template {
        name: "alphas",
        major_line: "grey",
        minor_line: "rose",
        line_colors: "00ff00aa,ff000077,00337799",
        ..DEFAULT
    },
    Template {
        name: "classic",
        background: "black",
        foreground: "white",
        major_line: "white",
        ..DEFAULT
    },
    Template {
        name: "grafana",
        line_colors: "#7eb26d,#eab839,#6ed0e0,#ef843c,#e24d42,#1f78c1,#ba43a9,#705da0,#508642,#cca300,#447ebc",
        ..DEFAULT
    },
    Template {
        name: "noc",
        background: "black",
        foreground: "white",
        major_line: "white",
        line_colors: "blue,green,red,yellow,purple,brown,aqua,grey,magenta,pink,gold,rose",
        ..DEFAULT
    },
    Template {
        name: "solarized-light",
        background: "#fdf6e3",
        foreground: "#657b83",
        major_line: "#073642",
        minor_line: "#586e75",
        line_colors: SOLARIZED,
    },
    Template {
        name: "solarized-dark",
        background: "#002b36",
        foreground: "#839496",
        major_line: "#fdf6e3",
        minor_line: "#eee8d5",
        line_colors: SOLARIZED,
    },
    // Its foreground is black in Graphite too, on a black ground; there it makes every word
    // invisible, so the words are white here.
    Template {
        name: "summary",
        background: "black",
        foreground: "white",
        line_colors: "#6666ff,#66ff66,#ff6666",
        ..DEFAULT
    },
    ramp(
        "ocean1",
        "f7fcf0,e0f3db,ccebc5,a8ddb5,7bccc4,4eb3d3,2b8cbe,0868ac,084081",
    ),
    ramp(
        "ocean2",
        "084081,0868ac,2b8cbe,4eb3d3,7bccc4,a8ddb5,ccebc5,e0f3db,f7fcf0",
    ),
    ramp(
        "forest1",
        "f7fcf5,e5f5e0,c7e9c0,a1d99b,74c476,41ab5d,238b45,005a32",
    ),
    ramp(
        "forest2",
        "005a32,238b45,41ab5d,74c476,a1d99b,c7e9c0,e5f5e0,f7fcf5",
    ),
    ramp(
        "sunset1",
        "fff5eb,fee6ce,fdd0a2,fdae6b,fd8d3c,f16913,d94801,8c2d04",
    ),
    ramp(
        "sunset2",
        "8c2d04,d94801,f16913,fd8d3c,fdae6b,fdd0a2,fee6ce,fff5eb",
    ),
    ramp(
        "moonlight1",
        "fcfbfd,efedf5,dadaeb,bcbddc,9e9ac8,807dba,6a51a3,4a1486",
    ),
    ramp(
        "moonlight2",
        "4a1486,6a51a3,807dba,9e9ac8,bcbddc,dadaeb,efedf5,fcfbfd",
    ),
    ramp(
        "lava1",
        "fff5f0,fee0d2,fcbba1,fc9272,fb6a4a,ef3b2c,cb181d,99000d",
    ),
    ramp(
        "lava2",
        "99000d,cb181d,ef3b2c,fb6a4a,fc9272,fcbba1,fee0d2,fff5f0",
    ),
    Template {
        name: "light",
        background: "#ffffff",
        foreground: "#333a45",
        major_line: "#8a94a6",
        minor_line: "#aab2c0",
        line_colors: "#3b6fd8,#1f9d55,#d64545,#8b5bd6,#d9822b,#138d90,#b83280,#7a6a4f,#5b7a1f,#6b7280",
    },
    Template {
        name: "dark",
        background: "#15181e",
        foreground: "#c9d1d9",
        major_line: "#7d8796",
        minor_line: "#5a6270",
        line_colors: "#6ea8fe,#5fd38d,#ff7b7b,#c29bff,#ffb25e,#4fd1c5,#f687c3,#d6c08f,#b4d455,#a0aec0",
    },
];

/// The template called `name`; the default one for an unknown name.
pub(super) fn find(name: &str) -> &'static Template {
    TEMPLATES
        .iter()
        .find(|t| t.name == name)
        .unwrap_or(&DEFAULT)
}

/// The names of all templates.
pub fn names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|t| t.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::color::Color;

    #[test]
    fn every_colour_of_every_template_is_one() {
        for t in TEMPLATES {
            let colors = [t.background, t.foreground, t.major_line, t.minor_line];
            for text in colors.into_iter().chain(t.line_colors.split(',')) {
                assert!(Color::parse(text).is_some(), "{}: {text}", t.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_unknown_ones_fall_back() {
        let mut seen: Vec<_> = names().collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), TEMPLATES.len());
        assert_eq!(find("no such").name, "default");
    }
}
