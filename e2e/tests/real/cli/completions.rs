//! Shell completions, as the shells themselves read them.

use std::process::{Command, Stdio};

use kvern_e2e::{kvern, needs};

#[test]
fn completions_are_good_scripts_in_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(kvern()).args(["completions", shell]).output().expect("kvern runs");
        assert!(output.status.success() && output.stderr.is_empty());
        let script = String::from_utf8(output.stdout).expect("text");
        for verb in ["dev", "serve", "invoke", "jobs"] {
            assert!(script.contains(verb), "{shell} knows `{verb}`");
        }
        if shell == "bash" || needs::programs(&[shell]) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("completions");
            std::fs::write(&path, script).expect("written");
            let read =
                Command::new(shell).arg("-n").arg(&path).stderr(Stdio::piped()).output().expect("the shell runs");
            assert!(
                read.status.success() && read.stderr.is_empty(),
                "{shell}: {}",
                String::from_utf8_lossy(&read.stderr)
            );
        }
    }
}
