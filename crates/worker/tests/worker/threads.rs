//! On several threads and in real time, where what happens in the same moment meets in ways that one thread cannot show.

use std::sync::Arc;
use std::time::Duration;

use kvern_runtime::Invoke;
use kvern_runtime::fake::Act;
use tokio::task::{JoinSet, yield_now};

use crate::support::{World, call, changed, function};

/// Instances grow idle, die, are replaced and change version while work comes in: none of it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_that_meets_an_instance_on_its_way_out_is_not_lost() {
    let mut brief = function("brief", 3);
    brief.scale.idle = Duration::from_micros(200);
    let world = World::with(vec![brief.clone()]).await;
    world.fake.on("brief", |context, _| if context.job.is_some() { Act::echo() } else { Act::succeed("called") });
    let mut others = JoinSet::new();
    for _ in 0..3 {
        let worker = Arc::clone(&world.worker);
        others.spawn(async move {
            for _ in 0..300 {
                assert!(worker.call(call("brief", "x")).await.is_ok());
                yield_now().await;
            }
        });
    }
    let (worker, versions) = (Arc::clone(&world.worker), brief.clone());
    others.spawn(async move {
        for version in 0..60 {
            worker.set_functions(vec![changed(versions.clone(), &version.to_string())]).await;
            yield_now().await;
        }
    });
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(world.submit("brief", "x").await);
        yield_now().await;
    }
    while let Some(ended) = others.join_next().await {
        ended.expect("no panic");
    }
    for id in ids {
        let job = world.ends(id).await;
        assert_eq!((job.attempts.len(), job.tally.interruptions), (1, 0), "{job:?}");
    }
    assert!(world.fake.counts("brief").running_max <= 3);
    world.stop().await;
}
