//! A configuration before it has types: a tree in which every value knows where it was written.

/// Where a value was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    /// The command line: the number of the override, counted from 0.
    Override(usize),
    /// Nowhere: it is a default.
    #[default]
    Default,
}

/// A value and where it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The line of its key, or its own line within a list.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
    /// The value as typed on the command line, where quotes may be left out: taken as it is when
    /// text is wanted and it reads as something else (`--set data=2024`).
    pub typed: Option<String>,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Text in quotes.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Anything else (a date, a number beyond 64 bits), as written.
    Other(String),
    /// `[a, b]`
    List(Vec<Node>),
    /// A section, or `{a = 1}`.
    Table(Table),
}

/// Keys and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// In the order of the file.
    pub entries: Vec<(String, Node)>,
    /// Whether an entry was taken out because it was refused.
    pub(crate) damaged: bool,
}

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into the entry of a table.
    Key(String),
    /// Into the element of a list, counted from 0.
    Item(usize),
}

/// The way to a value from the section that is checked: `"udp"`, `("udp", 0)`,
/// `("rules", 1, "tags")`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl Default for Kind {
    fn default() -> Self {
        Self::Table(Table::default())
    }
}

impl From<&str> for Path {
    fn from(key: &str) -> Self {
        Self(vec![Step::Key(key.to_owned())])
    }
}

impl From<(&str, usize)> for Path {
    fn from((key, item): (&str, usize)) -> Self {
        Self(vec![Step::Key(key.to_owned()), Step::Item(item)])
    }
}

impl From<(&str, usize, &str)> for Path {
    fn from((key, item, below): (&str, usize, &str)) -> Self {
        let mut path = Self::from((key, item));
        path.0.push(Step::Key(below.to_owned()));
        path
    }
}

impl From<(&str, usize, &str, usize)> for Path {
    fn from((key, item, below, n): (&str, usize, &str, usize)) -> Self {
        let mut path = Self::from((key, item, below));
        path.0.push(Step::Item(n));
        path
    }
}

impl Path {
    /// The same way, from the table above that has this section under `section`.
    pub fn below(mut self, section: &str) -> Self {
        if !section.is_empty() {
            self.0.insert(0, Step::Key(section.to_owned()));
        }
        self
    }

    /// The keys with dots between them; which element of a list it is, the line says.
    pub fn key(&self) -> String {
        let keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item(_) => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }
}

impl Node {
    /// A value at `place`.
    pub fn new(place: Place, kind: Kind) -> Self {
        Self {
            place,
            kind,
            typed: None,
        }
    }

    /// Its table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.kind {
            Kind::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Its table, if it is one.
    pub fn as_table_mut(&mut self) -> Option<&mut Table> {
        match &mut self.kind {
            Kind::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Where the value at `path` was written; of one that is not there, where the nearest value
    /// around it was.
    pub fn place_of(&self, path: &Path) -> Place {
        let mut node = self;
        for step in &path.0 {
            let below = match (&node.kind, step) {
                (Kind::Table(table), Step::Key(key)) => table.get(key),
                (Kind::List(items), Step::Item(n)) => items.get(*n),
                // A single value stands for a list of one.
                (_, Step::Item(0)) => Some(node),
                _ => None,
            };
            match below {
                Some(below) => node = below,
                // A section's line says nothing about a key that is not in it.
                None if matches!(step, Step::Key(_)) => return Place::Default,
                None => break,
            }
        }
        node.place
    }

    /// Removes the value at `path`. Whether there was one.
    pub(crate) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((step, rest)) = path.split_first() else {
            return false;
        };
        match (&mut self.kind, step) {
            (Kind::Table(table), Step::Key(key)) => {
                let Some(at) = table.entries.iter().position(|(name, _)| name == key) else {
                    return false;
                };
                // A key that stands for a list of one goes with its only element.
                if !rest.is_empty() && table.entries[at].1.remove(rest) {
                    return true;
                }
                table.entries.remove(at);
                table.damaged = true;
                true
            }
            (Kind::List(items), Step::Item(n)) => {
                let Some(item) = items.get_mut(*n) else {
                    return false;
                };
                if !rest.is_empty() && item.remove(rest) {
                    return true;
                }
                items.remove(*n);
                true
            }
            _ => false,
        }
    }
}

impl Table {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let found = self.entries.iter().find(|(name, _)| name == key);
        found.map(|(_, node)| node)
    }

    /// Sets the value of `key`, which may be there already.
    pub fn set(&mut self, key: &str, node: Node) {
        self.entries.retain(|(name, _)| name != key);
        self.entries.push((key.to_owned(), node));
    }

    /// The table under `key`, made if it is not there; `None` if something else is.
    pub fn section(&mut self, key: &str) -> Option<&mut Self> {
        if self.get(key).is_none() {
            self.set(key, Node::default());
        }
        let found = self.entries.iter_mut().find(|(name, _)| name == key);
        found.and_then(|(_, node)| node.as_table_mut())
    }
}
