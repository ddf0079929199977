//! The functions as the gateway sees them: by name, by route, each with its metrics at hand.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::Method;
use kvern_core::{Function, FunctionName};

use crate::metrics::{FunctionMetrics, Metrics};

/// All functions of one reading of the manifest. Replaced as a whole on reload.
#[derive(Debug, Default)]
pub struct Functions {
    by_name: HashMap<FunctionName, Arc<Entry>>,
    /// The manifest's routes: by path, then by method.
    by_path: HashMap<String, Vec<(Method, Arc<Entry>)>>,
}

/// How a function fares on the worker's side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// The version that runs now, as a short hash.
    pub version: Option<String>,
    /// Why it cannot start, if it cannot.
    pub error: Option<String>,
    /// Whether an instance of this version has started.
    pub started: bool,
}

/// Tells how a function fares; from the binary, because the gateway does not know the worker.
pub type Conditions = Arc<dyn Fn(&FunctionName) -> Condition + Send + Sync>;

/// Tells the names of the workers that are connected.
pub type Workers = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// One function.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) function: Function,
    pub(crate) metrics: Arc<FunctionMetrics>,
}

// === impl Condition ===

impl Condition {
    /// One word for it. A handler is not run before its first job, so that only `live` says that its code starts.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self { error: Some(_), .. } => "broken",
            Self { version: None, .. } => "preparing",
            Self { started: false, .. } => "ready",
            Self { started: true, .. } => "live",
        }
    }
}

// === impl Functions ===

impl Functions {
    /// These functions, with their metrics resolved once.
    #[must_use]
    pub fn new(functions: impl IntoIterator<Item = Function>, metrics: &Metrics) -> Self {
        let mut this = Self::default();
        for function in functions {
            let entry = Arc::new(Entry { metrics: metrics.function(&function.name), function });
            if let Some(route) = &entry.function.route
                && let Ok(method) = Method::from_bytes(route.method.as_bytes())
            {
                this.by_path.entry(route.path.clone()).or_default().push((method, Arc::clone(&entry)));
            }
            this.by_name.insert(entry.function.name.clone(), entry);
        }
        this
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.by_name.get(name)
    }

    /// The functions that have a route at this path, by method; none if no function has.
    pub(crate) fn at_path(&self, path: &str) -> Option<&[(Method, Arc<Entry>)]> {
        self.by_path.get(path).map(Vec::as_slice)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(FunctionName::as_str)
    }

    /// All of them, in the order of names.
    pub(crate) fn sorted(&self) -> Vec<&Arc<Entry>> {
        let mut entries: Vec<_> = self.by_name.values().collect();
        entries.sort_by(|a, b| a.function.name.cmp(&b.function.name));
        entries
    }
}
