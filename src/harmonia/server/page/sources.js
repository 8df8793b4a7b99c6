// Where the list gets its records from, page by page: what is remembered by date, or what a recall brings back.

import * as api from "./api.js";
import { dateOf } from "./dates.js";

// The most that one recall returns.
const MOST = 1000;
// How many are read at once where the page itself selects among them.
const MANY = 200;

// All records by date or by when they were added.
export class Browsed {
  constructor({ where, k, sort, keeps, selects }) {
    this.dated = sort !== "added";
    this.asked = { where, sort: this.dated ? "date" : "created" };
    this.order = sort === "oldest" ? "asc" : "desc";
    this.limit = selects ? MANY : k;
    this.keeps = keeps;
    this.last = this.before = this.first = "";
    this.more = true;
    this.kept = [];
  }

  // The months that there are, with the number of records of each.
  async count(signal) {
    if (!this.dated) return [];
    return (await api.timeline({ where: this.asked.where, order: this.order, signal })).data;
  }

  // Begins the list at a month, or at the nearest one after it.
  begin(months, month) {
    if (!month || !months.length) return;
    const reached = (one) => (this.order === "asc" ? one.month >= month : one.month <= month);
    this.last = (months.find(reached) ?? months.at(-1)).after ?? "";
    // the record before the first one that is shown
    this.before = this.last;
  }

  async next(signal) {
    const page = await api.records({ ...this.asked, order: this.order, limit: this.limit, after: this.last, signal });
    this.last = page.last_id ?? this.last;
    this.first ||= page.first_id ?? "";
    this.more = page.has_more;
    return this.#kept(page.data, (records) => this.kept.push(...records));
  }

  get hasBefore() {
    return Boolean(this.before && this.first);
  }

  // The page before the first record.
  async previous(signal) {
    const page = await this.#beside(this.first, -1, this.limit, signal);
    this.first = page.last_id ?? this.first;
    this.before = page.has_more ? this.first : "";
    return this.#kept(page.data.reverse(), (records) => this.kept.unshift(...records));
  }

  // The record after (1) or before (-1) one that is perhaps not in the list.
  async neighbour(id, direction, signal) {
    const page = await this.#beside(id, direction, this.limit === MANY ? MANY : 1, signal);
    return page.data.find(this.keeps) ?? null;
  }

  forget(id) {
    const at = this.kept.findIndex((record) => record.id === id);
    if (this.last === id) this.last = this.kept[at - 1]?.id ?? "";
    if (this.first === id) this.first = this.kept[at + 1]?.id ?? "";
    if (at >= 0) this.kept.splice(at, 1);
  }

  #kept(records, keep) {
    const found = records.filter(this.keeps);
    keep(found);
    return found;
  }

  #beside(id, direction, limit, signal) {
    const reverse = this.order === "asc" ? "desc" : "asc";
    return api.records({ ...this.asked, order: direction > 0 ? this.order : reverse, limit, after: id, signal });
  }
}

// What cues bring back. Each further page recalls more of the same, and leaves out what is shown.
export class Recalled {
  constructor(cues, { where, k, sort, keeps, selects }) {
    this.cues = cues;
    this.asked = where ? { where } : {};
    this.sort = sort;
    this.k = selects || this.#dated ? MANY : k;
    this.keeps = keeps;
    this.more = true;
    this.answer = null;
    this.given = new Set();
  }

  get #dated() {
    return this.sort === "newest" || this.sort === "oldest";
  }

  async next(signal) {
    this.answer = await api.recall(this.cues, { ...this.asked, k: this.k, explain: true }, signal);
    this.more = this.answer.records.length >= this.k && this.k < MOST && !this.#dated;
    this.k = Math.min(MOST, 2 * this.k);
    const found = this.answer.records.filter((record) => !this.given.has(record.id));
    for (const record of found) this.given.add(record.id);
    return this.#ordered(found.filter(this.keeps));
  }

  get hasBefore() {
    return false;
  }

  async neighbour() {
    return null;
  }

  forget() {}

  #ordered(records) {
    if (!this.#dated) return records;
    const sign = this.sort === "oldest" ? 1 : -1;
    const key = (record) => dateOf(record) || (sign > 0 ? "9" : "");
    return [...records].sort((a, b) => (key(a) < key(b) ? -sign : key(a) > key(b) ? sign : 0));
  }
}
