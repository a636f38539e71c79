//! Reading, writing, comparing and moving dates and times.

use std::cmp::Ordering;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

fn point(text: &str) -> DateTime {
    DateTime::parse_cql(text).unwrap_or_else(|| panic!("no date-time: {text}"))
}

fn new_york() -> TimeZone {
    TimeZone::get("America/New_York").expect("INVARIANT: the zone database is built in")
}

#[test]
fn what_fhir_writes_is_read_and_nothing_else() {
    let read = |text: &str| DateTime::parse_fhir(text).map(|point| point.to_string());
    let cases = [
        ("2012", Some("2012")),
        ("2012-02", Some("2012-02")),
        ("2012-02-29", Some("2012-02-29")),
        ("2012-02-29T10:00:00Z", Some("2012-02-29T10:00:00.000Z")),
        ("2012-02-29T10:00:00.1234567-05:30", Some("2012-02-29T10:00:00.123-05:30")),
        ("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59.000Z")),
        ("2013-02-29", None),
        ("2012-13", None),
        ("0000-01-01", None),
        ("2012-02-29T", None),
        ("2012-02T10:00:00Z", None),
        ("2012-02-29Z", Some("2012-02-29")),
        ("2012-02-29-05:00", Some("2012-02-29")),
        ("2012-02-29+5", None),
        ("2012-02-29Zx", None),
        ("2012-02Z", None),
        ("2012-02-29T24:00:00Z", None),
        ("2012-02-29T10:00:00+15:00", None),
        ("2012-02-29 10:00:00", None),
        ("", None),
        ("２０１２", None),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn comparison_answers_only_what_is_known() {
    let utc = TimeZone::UTC;
    let cases = [
        ("2012", "2013", None, Some(Ordering::Less)),
        ("2012", "2012-03", None, None),
        ("2012-03", "2012-03", None, Some(Ordering::Equal)),
        ("2012-03-01T10:00:00.0Z", "2012-03-01T05:00:00.0-05:00", None, Some(Ordering::Equal)),
        ("2012-03-01T23:00:00.0-05:00", "2012-03-02T00:00:00.0Z", Some(Precision::Day), Some(Ordering::Less)),
        ("2012-03-01T23:00:00.0-05:00", "2012-03-02T04:30:00.0Z", Some(Precision::Hour), Some(Ordering::Equal)),
        ("2012-03-01T10:00", "2012-03-01T10:00:30", Some(Precision::Hour), Some(Ordering::Equal)),
        ("2012-03", "2012-03", Some(Precision::Day), None),
    ];
    for (left, right, precision, expected) in cases {
        assert_eq!(point(left).compare(&point(right), precision, &utc), expected, "{left} {right}");
    }
}

#[test]
fn a_missing_offset_is_the_zones_at_that_local_time() {
    let zone = new_york();
    assert_eq!(point("2024-01-15T12:00").offset_in(&zone), -300);
    assert_eq!(point("2024-07-15T12:00").offset_in(&zone), -240);
    let (local, absolute) = (point("2024-07-15T12:00:00.000"), point("2024-07-15T16:00:00.000Z"));
    assert_eq!(local.compare(&absolute, None, &zone), Some(Ordering::Equal));
    // Late evening in New York is the next day in UTC; days are compared as they are written, hours on the zone's clock.
    let evening = point("2024-07-16T01:00:00.000Z");
    assert_eq!(evening.compare(&point("2024-07-15T21:00:00.000-04:00"), Some(Precision::Day), &zone), Some(Ordering::Greater));
    assert_eq!(evening.compare(&point("2024-07-15T21:30:00.000-04:00"), Some(Precision::Hour), &zone), Some(Ordering::Equal));
    assert_eq!(evening.local_time(&zone), Time::parse("21:00:00.000"));
}

#[test]
fn calendar_arithmetic() {
    let cases = [
        ("2012-01-31", "1", Precision::Month, Some("2012-02-29")),
        ("2012-02-29", "1", Precision::Year, Some("2013-02-28")),
        ("2014", "25", Precision::Month, Some("2016")),
        ("2014-06", "33", Precision::Day, Some("2014-07")),
        ("2012-02-28", "1", Precision::Week, Some("2012-03-06")),
        ("2012-02-28T23:59:59.999", "1", Precision::Millisecond, Some("2012-02-29T00:00:00.000")),
        ("2012-02-28T10:00:00.000", "1.5", Precision::Second, Some("2012-02-28T10:00:01.500")),
        ("9999-12-31", "1", Precision::Day, None),
        ("0001-01-01", "-1", Precision::Day, None),
    ];
    for (start, amount, unit, expected) in cases {
        let moved = point(start).add(amount.parse().unwrap(), unit).map(|point| point.to_string());
        assert_eq!(moved.as_deref(), expected, "{start} + {amount} {unit:?}");
    }
}

#[test]
fn durations_and_differences() {
    let utc = TimeZone::UTC;
    let cases = [
        (Counting::Duration, "2012-03-10T22:05:09|2012-03-24T07:19:33", Precision::Week, 1, 1),
        (Counting::Difference, "2012-03-10T22:05:09|2012-03-24T07:19:33", Precision::Week, 2, 2),
        (Counting::Duration, "2005|2010", Precision::Year, 4, 5),
        (Counting::Duration, "2014-01-15|2014-02", Precision::Day, 16, 44),
        (Counting::Difference, "2016|1998", Precision::Year, -18, -18),
        (Counting::Duration, "2017-08-07T17:00|2017-08-14", Precision::Day, 6, 7),
        (Counting::Duration, "2012-01-01T01:30|2012-01-01T02", Precision::Hour, 0, 0),
        (Counting::Duration, "2012-01-01T20|2012-01-01T07:27:59", Precision::Minute, -812, -752),
        (Counting::Duration, "2012-01-01T01:00:00|2012-01-01T02:00:00.5", Precision::Millisecond, 3_600_500, 3_600_500),
    ];
    for (counting, pair, unit, low, high) in cases {
        let Some((start, end)) = pair.split_once('|') else { continue };
        let span = between_date_times(counting, &point(start), &point(end), unit, &utc);
        assert_eq!(span, Span { low, high }, "{pair} {unit:?}");
    }
    // The clock goes forward within what is unknown of the end: not every day of March begins at the same offset.
    let hours = between_date_times(Counting::Duration, &point("2012-03-01T00:00:00.000"), &point("2012-03"), Precision::Hour, &new_york());
    assert_eq!(hours, Span { low: 0, high: 31 * 24 - 2 });
    let times = |start: &str, end: &str, unit: Precision| between_times(Counting::Duration, &Time::parse(start)?, &Time::parse(end)?, unit);
    assert_eq!(times("20", "07:27:59", Precision::Minute), Some(Span { low: -812, high: -752 }));
    assert_eq!(times("06", "07:00:00", Precision::Hour), Some(Span { low: 1, high: 1 }));
    let (leap, before, after) = (Date::parse("2000-02-29"), Date::parse("2001-02-28"), Date::parse("2001-03-01"));
    let years = |end: Option<Date>| between_dates(Counting::Duration, &leap.unwrap(), &end.unwrap(), Precision::Year);
    assert_eq!(years(before), Some(Span { low: 0, high: 0 }));
    assert_eq!(years(after), Some(Span { low: 1, high: 1 }));
}

prop_compose! {
    fn any_date()(year in 1..=9999_i32, month in 1..=12_i32, day in 1..=31_i32, precision in 1..=3_i32) -> Date {
        let day = day.min(days_in_month(year, month));
        let month = (precision > 1).then_some(month);
        Date::new(year, month, (precision > 2).then_some(day)).expect("INVARIANT: a date of the calendar")
    }
}

prop_compose! {
    fn any_time()(hour in 0..24, minute in 0..60, second in 0..60, milli in 0..1000, precision in 1..=4) -> Time {
        let has = |wanted: i32, value: i32| (precision >= wanted).then_some(value);
        Time::new(hour, has(2, minute), has(3, second), has(4, milli)).expect("INVARIANT: a time of the day")
    }
}

prop_compose! {
    fn any_point()(date in any_date(), time in proptest::option::of(any_time()), offset in proptest::option::of(-840_i16..=840)) -> DateTime {
        let time = time.filter(|_| date.day().is_some());
        DateTime::new(date, time, offset.filter(|_| time.is_some())).expect("INVARIANT: valid parts")
    }
}

proptest! {
    #[test]
    fn written_and_read_again(point in any_point(), time in any_time(), date in any_date()) {
        prop_assert_eq!(DateTime::parse_cql(&point.to_string()), Some(point));
        prop_assert_eq!(Time::parse(&time.to_string()), Some(time));
        prop_assert_eq!(Date::parse(&date.to_string()), Some(date));
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = (DateTime::parse_cql(&text), DateTime::parse_fhir(&text), Time::parse(&text), Date::parse(&text));
    }

    #[test]
    fn nearly_dates_do_not_panic(text in "@?[0-9]{0,5}[-T:.Z+0-9]{0,30}") {
        let _ = (DateTime::parse_cql(&text), DateTime::parse_fhir(&text), Time::parse(&text), Date::parse(&text));
    }

    #[test]
    fn order_is_antisymmetric(left in any_point(), right in any_point()) {
        let zone = new_york();
        let forward = left.compare(&right, None, &zone);
        let backward = right.compare(&left, None, &zone);
        prop_assert_eq!(forward.map(Ordering::reverse), backward);
    }

    #[test]
    fn order_is_transitive(a in any_point(), b in any_point(), c in any_point()) {
        let zone = new_york();
        let less = |left: &DateTime, right: &DateTime| left.compare(right, None, &zone) == Some(Ordering::Less);
        if less(&a, &b) && less(&b, &c) {
            prop_assert_ne!(a.compare(&c, None, &zone), Some(Ordering::Greater));
        }
    }

    #[test]
    fn days_and_back(days in -700_000_i64..2_900_000) {
        let (year, month, day) = civil_from_days(days);
        prop_assert_eq!(days_from_civil(i32::try_from(year).unwrap_or(0), month, day), days);
    }

    #[test]
    fn moving_does_not_panic(point in any_point(), amount in any::<i64>(), unit in 0..8_usize) {
        let units = [Precision::Year, Precision::Month, Precision::Week, Precision::Day,
            Precision::Hour, Precision::Minute, Precision::Second, Precision::Millisecond];
        let _ = point.add(Decimal::from(amount), units[unit]);
        let _ = point.date().add(Decimal::from(amount), units[unit]);
    }
}

#[test]
fn what_is_written_in_utc_is_meant_in_the_zone_and_what_has_another_offset_as_it_is_written() {
    let zone = TimeZone::get("America/New_York").unwrap();
    for (written, meant) in [
        ("2026-01-07T04:50:00Z", "2026-01-06T23:50:00-05:00"),
        ("2026-07-01T02:00:00+00:00", "2026-06-30T22:00:00-04:00"),
        ("2026-01-07T04:50:00-03:00", "2026-01-07T04:50:00-03:00"),
        ("2026-01-07", "2026-01-07"),
    ] {
        let read = |text: &str| DateTime::parse_fhir(text).unwrap();
        assert_eq!(read(written).of_utc_in(&zone), read(meant), "{written}");
        assert_eq!(read(written).of_utc_in(&TimeZone::UTC), read(written), "{written}");
    }
}
