export * from "lucide";
