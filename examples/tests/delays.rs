//! The example that joins two streams and gathers windows: what it writes is what can be worked out by hand.

use std::collections::BTreeSet;
use std::fs;

#[path = "../examples/delays.rs"]
mod delays;

const FLIGHTS: &str = "\
year,month,day,dep_delay,origin,hour
2013,1,1,10,JFK,6
2013,1,1,-4,JFK,5
2013,1,1,NA,JFK,5
2013,1,1,7,EWR,5
2013,1,2,30,JFK,5
";

/// None for JFK at 6, and of hours without flights.
const WEATHER: &str = "\
origin,year,month,day,hour,wind_speed
EWR,2013,1,1,5,NA
JFK,2013,1,1,5,8
JFK,2013,1,2,4,20
JFK,2013,1,2,5,12.5
";

#[test]
fn each_window_has_its_flights_and_their_wind_and_a_second_run_adds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("flights.csv"), FLIGHTS).unwrap();
    fs::write(at("weather.csv"), WEATHER).unwrap();
    let expected: BTreeSet<&str> = [
        "JFK,2013-01-01,03,1 flights,-4.0 min late,8.0 mph",
        "JFK,2013-01-01,04,2 flights,3.0 min late,8.0 mph",
        "JFK,2013-01-01,05,2 flights,3.0 min late,8.0 mph",
        "JFK,2013-01-01,06,1 flights,10.0 min late,wind unknown",
        "EWR,2013-01-01,03,1 flights,7.0 min late,wind unknown",
        "EWR,2013-01-01,04,1 flights,7.0 min late,wind unknown",
        "EWR,2013-01-01,05,1 flights,7.0 min late,wind unknown",
        "JFK,2013-01-02,03,1 flights,30.0 min late,12.5 mph",
        "JFK,2013-01-02,04,1 flights,30.0 min late,12.5 mph",
        "JFK,2013-01-02,05,1 flights,30.0 min late,12.5 mph",
    ]
    .into();
    for run in ["the first", "the second"] {
        let checkpoints = at("checkpoints");
        delays::run(&at("flights.csv"), &at("weather.csv"), &at("out"), checkpoints.to_str().unwrap()).unwrap();
        let files = fs::read_dir(at("out")).unwrap();
        let text: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        assert_eq!(text.lines().count(), expected.len(), "{run} run: {text}");
        assert_eq!(text.lines().collect::<BTreeSet<_>>(), expected, "{run} run");
    }
}
