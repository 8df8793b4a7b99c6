// Dates of records in words. A record's date is when it was taken, else when its file was modified.

const MONTH = new Intl.DateTimeFormat("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });
const SHORT = new Intl.DateTimeFormat("en-GB", { month: "long", timeZone: "UTC" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
const DATE = /^(\d{4})-(0[1-9]|1[0-2])(?:-(\d{2})(?:[T ](\d{2}:\d{2}))?)?/;

export function dateOf(record) {
  const { taken, modified } = record.metadata ?? {};
  return [record.date, taken, modified].find((one) => typeof one === "string" && DATE.test(one)) ?? "";
}

export const monthOf = (record) => dateOf(record).slice(0, 7);

const day = (year, month, number = "01") => new Date(Date.UTC(Number(year), Number(month) - 1, Number(number)));

// "2019-07" as "July 2019", or with `short` as "July".
export function monthName(month, short = false) {
  const found = DATE.exec(month);
  return found ? (short ? SHORT : MONTH).format(day(found[1], found[2])) : "No date";
}

// "2019-07-01T10:00:00+02:00" as "1 July 2019, 10:00": the time is that of the place.
export function dayName(date) {
  const [, year, month, number, time] = DATE.exec(date) ?? [];
  if (!year) return String(date);
  if (!number) return monthName(date);
  return `${DAY.format(day(year, month, number))}${time ? `, ${time}` : ""}`;
}

export function placeName(latitude, longitude) {
  const side = (value, positive, negative) => `${Math.abs(value).toFixed(4)}° ${value < 0 ? negative : positive}`;
  return `${side(latitude, "N", "S")}, ${side(longitude, "E", "W")}`;
}
