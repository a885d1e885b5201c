export { tinykeys } from "tinykeys";
