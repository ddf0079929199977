//! probe
#[test]
fn probe() {
    let text = std::fs::read_to_string("/tmp/probe.toml").expect("x");
    for text in text.split("=====\n") {
        println!("-------\n{text}-------");
        match kvern_manifest::check(
            text,
            std::path::Path::new("kvern.toml"),
            &kvern_manifest::Defaults { concurrency: 4 },
        ) {
            Ok(m) => println!("{m:#?}"),
            Err(e) => println!("{e}"),
        }
    }
    println!("{}", kvern_manifest::schema_text());
    println!("{}", kvern_manifest::reference_markdown());
}
