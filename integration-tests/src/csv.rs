use crate::Rng;

/// Flights in the columns that the job reads, so many, over 60 days and 30 routes, in the order of their days. The same
/// at each call.
#[must_use]
pub fn small_csv(flights: usize) -> String {
    let mut rng = Rng::new(2013);
    let mut text = "year,month,day,dep_time,arr_delay,carrier,flight,origin,dest\n".to_owned();
    for flight in 0..flights {
        let day = flight * 60 / flights.max(1);
        let (month, day) = (1 + day / 28, 1 + day % 28);
        let origin = ["EWR", "JFK", "LGA"][rng.below(3)];
        let dest = ["ATL", "BOS", "CLT", "DEN", "FLL", "IAH", "LAX", "MIA", "ORD", "SFO"][rng.below(10)];
        let (time, delay) = (rng.below(2400), rng.below(120));
        let (time, delay) = match rng.below(40) {
            0 => ("NA".to_owned(), "NA".to_owned()),
            1 => (time.to_string(), "NA".to_owned()),
            2..10 => (time.to_string(), format!("-{delay}")),
            _ => (time.to_string(), delay.to_string()),
        };
        text += &format!("2013,{month},{day},{time},{delay},UA,{},{origin},{dest}\n", 100 + flight);
    }
    text
}
